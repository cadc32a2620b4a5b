//! Certificates as they came over the wire, looked at by x509-parser and OpenSSL alone.

use std::path::Path;
use std::process::Command;

use portcullis_api::workload::X509svid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{BasicConstraints, GeneralName, KeyUsage};
use x509_parser::prelude::FromDer as _;

/// Certificates in DER, one after the other.
pub(crate) fn split(der: &[u8]) -> Vec<&[u8]> {
    let mut rest = der;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).expect("not a certificate");
        found.push(&rest[..rest.len() - after.len()]);
        rest = after;
    }
    found
}

pub(crate) fn parse(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

pub(crate) fn uris<'c>(certificate: &'c X509Certificate<'_>) -> Vec<&'c str> {
    let names = certificate.subject_alternative_name().unwrap().map(|extension| &extension.value.general_names);
    let uri = |name: &'c GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    names.into_iter().flatten().filter_map(uri).collect()
}

/// KeyUsage, which has to be there and critical.
pub(crate) fn key_usage(certificate: &X509Certificate<'_>) -> KeyUsage {
    let usage = certificate.key_usage().unwrap().expect("no KeyUsage");
    assert!(usage.critical, "KeyUsage is not critical");
    *usage.value
}

/// BasicConstraints, which have to be there.
pub(crate) fn constraints(certificate: &X509Certificate<'_>) -> BasicConstraints {
    certificate.basic_constraints().unwrap().expect("no BasicConstraints").value.clone()
}

fn pem<'d>(ders: impl IntoIterator<Item = &'d [u8]>) -> String {
    let one = |der: &[u8]| {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    ders.into_iter().map(one).collect()
}

fn file(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// What OpenSSL says of a chain below a bundle, as server and, with every rule of RFC 5280, as client.
pub(crate) fn openssl_verify(chain: &[&[u8]], bundle: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let leaf = file(folder.path(), "leaf.pem", pem([chain[0]]));
    let above = file(folder.path(), "above.pem", pem(chain[1..].iter().copied()));
    let roots = file(folder.path(), "roots.pem", pem(split(bundle)));
    for purpose in [&["-purpose", "sslserver"][..], &["-purpose", "sslclient", "-x509_strict"]] {
        let mut openssl = Command::new("openssl");
        openssl.arg("verify").args(purpose).arg("-trusted").arg(&roots);
        if chain.len() > 1 {
            openssl.arg("-untrusted").arg(&above);
        }
        let output = openssl.arg(&leaf).output().expect("openssl is installed");
        if !output.status.success() {
            return Err(format!("{purpose:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}

/// The identity as OpenSSL finds it: the chain leads to the bundle beside it, and the key is the leaf's.
pub(crate) fn openssl_agrees(svid: &X509svid) {
    let chain = split(&svid.x509_svid);
    openssl_verify(&chain, &svid.bundle).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let public = |arguments: &[&str], input: &Path| {
        let output = Command::new("openssl").args(arguments).arg("-in").arg(input).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let key = file(folder.path(), "key.der", &svid.x509_svid_key);
    let leaf = file(folder.path(), "leaf.der", chain[0]);
    let of_leaf = public(&["x509", "-inform", "DER", "-noout", "-pubkey"], &leaf);
    assert_eq!(public(&["pkey", "-inform", "DER", "-pubout"], &key), of_leaf, "another key");
    // PKCS#8, not encrypted (Workload API §5.2.1): this command reads nothing else.
    public(&["pkcs8", "-inform", "DER", "-nocrypt"], &key);
}
