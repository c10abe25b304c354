//! What one operation costs: instructions by the counter, stack by painting.

use core::arch::asm;
use core::hint::black_box;

/// What lies below the stack pointer before the operation runs.
const PAINT: u32 = 0x5a5a_c3c3;
/// The painter's own frame is below the pointer it read.
const PAINTER: usize = 256;

/// What one run of an operation cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Instructions retired, a dozen of the measuring itself among them.
    pub instructions: u64,
    /// The deepest the stack went below the caller, in bytes; what the operation returns is in it.
    pub stack: usize,
}

/// Runs an operation once.
#[inline(never)]
pub fn measure<T>(operation: impl FnOnce() -> T) -> (T, Cost) {
    let here = stack_pointer();
    paint(here);
    let before = instructions();
    let result = run(operation);
    let after = instructions();
    let stack = here - lowest_touched() + size_of::<T>();
    (result, Cost { instructions: after - before, stack })
}

/// A frame of its own, so that all the operation keeps on the stack is below `measure`.
#[inline(never)]
fn run<T>(operation: impl FnOnce() -> T) -> T {
    black_box(operation())
}

fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack)) };
    pointer
}

fn stack_low() -> usize {
    let low: usize;
    // SAFETY: loads the address of a symbol of the linker script.
    unsafe { asm!("la {}, _stack_low", out(reg) low, options(nomem, nostack)) };
    low
}

#[inline(never)]
fn paint(pointer: usize) {
    for at in (stack_low()..pointer - PAINTER).step_by(4) {
        // SAFETY: between the end of the statics and this function's frame lies unused stack.
        unsafe { (at as *mut u32).write_volatile(PAINT) };
    }
}

#[inline(never)]
fn lowest_touched() -> usize {
    let mut at = stack_low();
    // SAFETY: memory of the stack, up to a word that is in use.
    while unsafe { (at as *const u32).read_volatile() } == PAINT {
        at += 4;
    }
    at
}

/// Instructions retired since the machine began. Under `-icount` it counts exactly.
fn instructions() -> u64 {
    loop {
        let (high, low, again): (u32, u32, u32);
        // SAFETY: reads two counters of machine mode.
        unsafe {
            asm!("csrr {}, minstreth", "csrr {}, minstret", "csrr {}, minstreth", out(reg) high, out(reg) low, out(reg) again, options(nomem, nostack));
        }
        if high == again {
            return (u64::from(high) << 32) | u64::from(low);
        }
    }
}
