//! Shows the JWT-SVID that the host gives this component.

use exports::acme::badge::tokens::Guest;
use wasmcloud::identity::store::{self, Error};

wit_bindgen::generate!({
    path: "wit",
    world: "badge",
    generate_all,
});

struct Badge;

impl Guest for Badge {
    fn token(audience: String) -> Result<String, String> {
        match store::get(&audience) {
            Ok(token) => token.ok_or_else(|| "no token".to_owned()),
            Err(Error::NotFound) => Err("no identity".to_owned()),
            Err(Error::Io(text) | Error::Other(text)) => Err(text),
        }
    }
}

export!(Badge);
