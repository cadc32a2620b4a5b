//! Compiles the contract without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(
        ["portcullis/v1/types.proto", "portcullis/v1/node.proto", "portcullis/v1/operator.proto"],
        ["proto"],
    )?;
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
