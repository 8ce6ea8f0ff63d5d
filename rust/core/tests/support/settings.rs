//! What the environment says about a sweep.

use std::env;

/// How much of a sweep is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Every call, each with one of its faults and a few of its crashes, chosen by the seed.
    Ci,
    /// Every call with every fault, and every crash.
    Full,
}

/// `EGO_SIM_SEED`, `EGO_SWEEP` and `EGO_SIM_CASE`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    size: Size,
    /// The one case to do, as a failure printed it, or the start of the names of several.
    only: Option<String>,
}

impl Settings {
    pub(crate) fn from_env() -> Self {
        let seed = env::var("EGO_SIM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let size = if env::var("EGO_SWEEP").is_ok_and(|text| text == "full") { Size::Full } else { Size::Ci };
        Self { seed, size, only: env::var("EGO_SIM_CASE").ok() }
    }

    /// Whether a case, or what leads to cases of which `name` is the start, is to be done.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.starts_with(name) || name.starts_with(only.as_str()))
    }

    /// Whether every way of going wrong at this call is to be tried.
    pub(crate) fn everything(&self, call: &str) -> bool {
        let replayed = self.only.as_ref().is_some_and(|only| only.len() > call.len());
        self.size == Size::Full || replayed
    }

    /// A number that depends on the seed and on `of` alone.
    pub(crate) fn chance(&self, of: &str) -> u64 {
        let hash = of.bytes().fold(0xCBF2_9CE4_8422_2325 ^ self.seed, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        hash ^ (hash >> 29)
    }
}
