//! The scheduler without rules: one request is one execution, first come, first served.

use tokio::time::Instant;

use super::queue::{Decision, Policy, Waiting};

/// Runs each request by itself.
#[derive(Debug)]
pub struct Direct;

impl Policy for Direct {
    fn form<'a, T: Waiting + 'a>(&mut self, _line: impl Iterator<Item = &'a T>, length: usize, _: Instant) -> Decision {
        if length == 0 { Decision::Wait(None) } else { Decision::Run(1) }
    }
}
