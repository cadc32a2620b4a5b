//! Passes what it is called with on to the interface of the same name that it imports, and the answer back; and misbehaves on request.
//!
//! It is the guest of the host's own tests: one function for every kind of value, and one for every way to be a bad guest.

use acme::mirror::{
    glass::{self, Access, Colour, Point, Shape},
    wire,
};
use exports::acme::mirror::{glass as mirrored, mischief, sender};

wit_bindgen::generate!({
    path: "wit",
    world: "mirror",
    generate_all,
    merge_structurally_equal_types: true,
});

type Integers = (u8, u16, u32, u64, i8, i16, i32, i64);

struct Mirror;

impl mirrored::Guest for Mirror {
    fn integers(a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64) -> Integers {
        glass::integers(a, b, c, d, e, f, g, h)
    }

    fn scalars(a: bool, b: f32, c: f64, d: char) -> (bool, f32, f64, char) {
        glass::scalars(a, b, c, d)
    }

    fn text(a: String) -> String {
        glass::text(&a)
    }

    fn bytes(a: Vec<u8>) -> Vec<u8> {
        glass::bytes(&a)
    }

    fn numbers(a: Vec<u64>) -> Vec<u64> {
        glass::numbers(&a)
    }

    fn place(a: Point) -> Point {
        glass::place(&a)
    }

    fn draw(a: Shape) -> Shape {
        glass::draw(&a)
    }

    fn paint(a: Colour) -> Colour {
        glass::paint(a)
    }

    fn allow(a: Access) -> Access {
        glass::allow(a)
    }

    fn maybe(a: Option<Option<u32>>) -> Option<Option<u32>> {
        glass::maybe(a)
    }

    fn outcome(a: Result<u32, String>) -> Result<u32, String> {
        glass::outcome(a.as_ref().map(|number| *number).map_err(String::as_str))
    }

    fn empty(a: Result<(), ()>) -> Result<(), ()> {
        glass::empty(a)
    }

    fn nested(a: Vec<(String, Vec<Vec<bool>>)>) -> Vec<(String, Vec<Vec<bool>>)> {
        glass::nested(&a)
    }

    fn nothing() {
        glass::nothing();
    }

    fn attempt(a: u32) -> Result<u32, String> {
        glass::attempt(a)
    }
}

impl sender::Guest for Mirror {
    fn send(a: u32) -> Result<u32, String> {
        wire::send(a).map_err(|error| error.to_debug_string())
    }

    fn ping() -> Result<(), String> {
        wire::ping().map_err(|error| error.to_debug_string())
    }
}

impl mischief::Guest for Mirror {
    fn spin() {
        loop {
            std::hint::black_box(());
        }
    }

    fn swell(bytes: u64) -> u64 {
        const CHUNK: usize = 64 * 1024;
        let mut held: Vec<Vec<u8>> = Vec::new();
        let mut got = 0;
        while got < bytes {
            let mut chunk = Vec::new();
            if chunk.try_reserve_exact(CHUNK).is_err() || held.try_reserve(1).is_err() {
                break;
            }
            chunk.resize(CHUNK, 1);
            held.push(std::hint::black_box(chunk));
            got += CHUNK as u64;
        }
        got
    }

    fn fall() {
        panic!("asked to");
    }
}

export!(Mirror);
