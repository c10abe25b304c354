//! Which linker script, and for which image relocations are kept.

use std::env;

fn main() {
    let Ok(folder) = env::var("CARGO_MANIFEST_DIR") else { return };
    let script = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("riscv32") => "virt.x",
        Ok("arm") => "thumb.x",
        _ => return,
    };
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg-bins=-T{folder}/{script}");
    // What calls what is read off the relocations. Relaxed code has fewer of them.
    for image in ["every", "sdk"] {
        println!("cargo:rustc-link-arg-bin={image}=--emit-relocs");
        println!("cargo:rustc-link-arg-bin={image}=--no-relax");
    }
}
