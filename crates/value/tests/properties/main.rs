//! What holds for every type and every value of it.

#[cfg(test)]
mod codec;
#[cfg(test)]
mod json;
#[cfg(test)]
mod typed;
