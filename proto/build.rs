//! Compiles the `.proto` files without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        [
            "proto/interflow/meta/v1.proto",
            "proto/interflow/meta/remote.proto",
            "proto/interflow/log.proto",
            "proto/interflow/peer.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(files)?;
    Ok(())
}
