//! What of e2ee firmware carries: the device's half, without the texts of its errors. Linked for its
//! size, and never run. It has no allocator, so nothing in it allocates.
#![no_std]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod image {
    use core::hint::spin_loop;
    use core::panic::PanicInfo;

    use unhidra_metal::ops::device;

    #[panic_handler]
    fn panic(_: &PanicInfo<'_>) -> ! {
        loop {
            spin_loop();
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn begin() -> ! {
        device::all(|_| {});
        loop {
            spin_loop();
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
