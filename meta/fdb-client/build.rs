//! Gives the linker an empty `libfdb_c.a`, so that what asks for `-lfdb_c` neither needs the library to
//! be built nor names it in the binary: this crate defines its symbols.

use std::path::PathBuf;
use std::{env, fs, io};

#[allow(clippy::disallowed_methods, reason = "a build script makes a file")]
fn main() -> io::Result<()> {
    let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    // The header of an archive without members.
    fs::write(out.join("libfdb_c.a"), b"!<arch>\n")?;
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
