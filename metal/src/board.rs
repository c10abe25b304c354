//! QEMU's board `virt`: from the reset to `begin`, text out, and an exit code.

use core::arch::global_asm;
use core::fmt;

// The reset vector jumps here. A trap has nobody to serve it: it ends the run with code 3.
global_asm!(
    ".section .init, \"ax\"",
    ".global _start",
    "_start:",
    "la t0, trap",
    "csrw mtvec, t0",
    "la sp, _stack_top",
    "call begin",
    ".balign 4",
    "trap:",
    "li t0, 0x100000",
    "li t1, 0x33333",
    "sw t1, 0(t0)",
    "j trap",
);

/// The serial line: what is written is shown on the terminal that runs QEMU.
#[derive(Debug)]
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the transmit register of the board's 16550, which QEMU serves at any time.
            unsafe { (0x1000_0000 as *mut u8).write_volatile(byte) };
        }
        Ok(())
    }
}

/// Ends the run. QEMU exits with `code`.
pub fn exit(code: u8) -> ! {
    let word = if code == 0 { 0x5555 } else { (u32::from(code) << 16) | 0x3333 };
    loop {
        // SAFETY: the board's test device; the write ends the machine.
        unsafe { (0x0010_0000 as *mut u32).write_volatile(word) };
    }
}
