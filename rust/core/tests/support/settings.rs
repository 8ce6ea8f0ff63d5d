//! What the environment says about a sweep.

use std::env;

/// How much of a sweep is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Every call, each with one of its faults or a few of its crashes, chosen by the seed.
    Ci,
    /// Every call with every fault, and every crash.
    Full,
}

/// `EGO_SIM_SEED`, `EGO_SWEEP` and `EGO_SIM_CASE`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) size: Size,
    /// The one case to do, as a failure printed it.
    pub(crate) only: Option<String>,
}

impl Settings {
    pub(crate) fn from_env() -> Self {
        let seed = env::var("EGO_SIM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let size = if env::var("EGO_SWEEP").is_ok_and(|text| text == "full") { Size::Full } else { Size::Ci };
        Self { seed, size, only: env::var("EGO_SIM_CASE").ok() }
    }

    /// A number that depends on the seed and on `of` alone.
    pub(crate) fn chance(&self, of: &str) -> u64 {
        let hash = of.bytes().fold(0xCBF2_9CE4_8422_2325 ^ self.seed, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        hash ^ (hash >> 29)
    }
}
