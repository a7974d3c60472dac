//! How much is tried: everything, a sample, or one point.

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};

const EXTENT: &str = "WALPOINT_TEST_TORTURE";
const SEED: &str = "WALPOINT_TEST_TORTURE_SEED";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extent {
    All,
    Sample {
        seed: u64,
    },
    Only {
        number: usize,
        kind: String,
    },
    /// A point of another operation.
    Other,
}

impl Extent {
    pub(super) fn of(operation: &str) -> Result<Extent> {
        match std::env::var(EXTENT) {
            Ok(text) if text == "all" => Ok(Extent::All),
            Ok(text) => Extent::point(&text, operation),
            Err(_) => {
                let seed = match std::env::var(SEED) {
                    Ok(text) => text.parse().with_context(|| format!("{SEED} is not a number"))?,
                    Err(_) => rand::rng().random_range(0..1_000_000),
                };
                Ok(Extent::Sample { seed })
            }
        }
    }

    /// `<operation>/<number>:<kind>`
    fn point(text: &str, operation: &str) -> Result<Extent> {
        let unclear = || format!("{EXTENT} is neither \"all\" nor <operation>/<number>:<kind>: {text}");
        let (wanted, point) = text.split_once('/').with_context(unclear)?;
        let (number, kind) = point.split_once(':').with_context(unclear)?;
        if wanted != operation {
            return Ok(Extent::Other);
        }
        Ok(Extent::Only { number: number.parse().with_context(unclear)?, kind: kind.to_owned() })
    }
}

/// The numbers below `count`, in an order of this seed.
pub(super) fn order(seed: u64, count: usize) -> Vec<usize> {
    index::sample(&mut StdRng::seed_from_u64(seed), count, count).into_vec()
}
