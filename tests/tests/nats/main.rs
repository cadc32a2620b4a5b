//! wRPC over NATS against a real `nats-server`: both ends of ours with each other, each with both releases of the stock
//! transport, and what goes wrong.

mod calls;
mod dropped;
mod faults;
mod hostile;
mod load;
mod renewal;
mod secure;
mod stock;
