//! The device side of e2ee on bare metal: what one operation costs in instructions and stack, how
//! large an image is, and that nothing in it can panic. See README.md.
#![no_std]

#[cfg(target_arch = "riscv32")]
pub mod board;
#[cfg(target_arch = "riscv32")]
pub mod measure;
pub mod ops;
pub mod rng;
#[cfg(target_arch = "riscv32")]
pub mod table;
