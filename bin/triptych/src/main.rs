//! The operator's command: run studies, look at them.

fn main() {}
