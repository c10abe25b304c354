//! Keeps every operation of e2ee, so that what can panic in it is in the image to be found.
//! Linked, and never run. It has no allocator, so nothing in it allocates.
#![no_std]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod image {
    use core::hint::{black_box, spin_loop};
    use core::panic::PanicInfo;

    use unhidra_metal::ops::{device, node, plain, tell};

    // Where it happened is asked for, so that no two ways to get here are folded into one.
    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        loop {
            black_box(info.location());
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn begin() -> ! {
        plain::all();
        device::all(|error| tell(error));
        node::all();
        node::stock();
        loop {
            spin_loop();
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
