//! Compiles the contracts without a `protoc` on the machine.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(
        ["portcullis/v1/types.proto", "portcullis/v1/node.proto", "portcullis/v1/operator.proto"],
        ["proto"],
    )?;
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(descriptors)?;
    let delegated = protox::compile(["spire/delegatedidentity.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .skip_debug([".spire.api.agent.delegatedidentity.v1.JWTSVID"])
        .compile_fds(delegated)?;
    let workload = protox::compile(["spiffe/workloadapi.proto"], ["proto"])?;
    // For gRPC reflection.
    let folder = std::env::var_os("OUT_DIR").ok_or("cargo names no folder")?;
    std::fs::write(std::path::Path::new(&folder).join("workloadapi.bin"), workload.encode_to_vec())?;
    tonic_prost_build::configure()
        // Ordered maps: the same content is then the same bytes, so that a stream can tell whether there is anything to send.
        .btree_map(".")
        // What holds keys and tokens is not printed: the library says how.
        .skip_debug([".X509SVID", ".JWTSVID", ".WITSVID", ".ValidateJWTSVIDRequest"])
        .compile_fds(workload)?;
    Ok(())
}
