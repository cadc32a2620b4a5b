//! Keeps things in a bucket and reads them from a container, both of which its host looks for elsewhere.

use exports::acme::shelf::things::Guest;
use wasi::blobstore::blobstore::get_container;
use wasi::blobstore::types::IncomingValue;
use wasi::keyvalue::store::{self, Bucket, Error};

wit_bindgen::generate!({
    path: "wit",
    world: "shelf",
    generate_all,
});

const BUCKET: &str = "things";
const CONTAINER: &str = "depot";

struct Shelf;

impl Guest for Shelf {
    fn put(key: String, value: String) -> Result<(), String> {
        bucket()?.set(&key, value.as_bytes()).map_err(said)
    }

    fn get(key: String) -> Result<Option<String>, String> {
        let value = bucket()?.get(&key).map_err(said)?;
        value.map(|value| String::from_utf8(value).map_err(|_| "it is no text".to_owned())).transpose()
    }

    fn weigh(object: String) -> Result<(u64, u64), String> {
        let value = get_container(CONTAINER)?.get_data(&object, 0, u64::MAX)?;
        let bytes = IncomingValue::incoming_value_consume_sync(value)?;
        Ok((bytes.len() as u64, bytes.iter().copied().map(u64::from).sum()))
    }
}

fn bucket() -> Result<Bucket, String> {
    store::open(BUCKET).map_err(said)
}

fn said(error: Error) -> String {
    match error {
        Error::NoSuchStore => "no such store".to_owned(),
        Error::AccessDenied => "access denied".to_owned(),
        Error::Other(text) => text,
    }
}

export!(Shelf);
