//! `resolve`: the operator's decision which content of a WAL file recovery uses.

use crate::cli::ResolveArgs;
use crate::config::Settings;
use crate::exit::{Ending, Failure};
use crate::{cluster_choice, open, output};
use serde_json::json;
use std::collections::BTreeSet;
use walpoint_archive::{Archive, ArchiveError, CatalogScope};
use walpoint_pitr::decided::{self, Apart};
use walpoint_wal::{Lsn, WalFileName};

/// Carries out `resolve`.
pub async fn run(settings: &Settings, args: &ResolveArgs, as_json: bool) -> Result<Ending, Failure> {
    open::refuse_root(settings)?;
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let Some(keep) = args.keep else { return Err(undecided(&chosen.archive, &args.name).await?) };
    chosen.archive.resolve(&args.name, keep).await?;
    let apart = apart_beside(&chosen.archive, &args.name).await;
    let text = if as_json {
        output::json_line(&json!({ "file": args.name, "used": keep, "apart": apart }))?
    } else {
        let decided =
            format!("recovery uses content {keep} of {}; every other content is refused\n", args.name);
        apart.iter().map(text_of).fold(decided, |text, line| text + &line)
    };
    output::result_of_work(&text);
    Ok(Ending::DONE)
}

/// Where the WAL beside what was decided does not fit. The decision stands whether or not that
/// can be told.
async fn apart_beside(archive: &Archive, name: &WalFileName) -> Vec<Apart> {
    let WalFileName::Segment(segment) = name else { return Vec::new() };
    let looking = async {
        let cluster = archive.cluster().await?.ok_or(ArchiveError::NoCluster(archive.system_identifier()))?;
        let before =
            segment.previous(cluster.segment_size).and_then(|it| it.start(cluster.segment_size).ok());
        let catalog = archive.catalog(CatalogScope::From(before.unwrap_or(Lsn::ZERO))).await?;
        decided::apart_beside(archive, &catalog, *segment).await
    };
    looking.await.unwrap_or_else(|error| {
        tracing::warn!("could not tell whether the segments beside {name} fit: {error}; see walpoint window");
        Vec::new()
    })
}

fn text_of(apart: &Apart) -> String {
    format!(
        "{}: recovery ends there, until that one is decided too (walpoint list --wal {}), or from a backup \
         taken behind it on\n",
        apart.reason, apart.segment
    )
}

/// Names what can be chosen.
async fn undecided(archive: &Archive, name: &WalFileName) -> Result<Failure, ArchiveError> {
    let state = archive.wal_variants(name).await?;
    let aside = archive.wal_conflicts(name).await?;
    let contents: BTreeSet<String> =
        state.variants.iter().chain(&aside).map(|variant| variant.content.to_string()).collect();
    let contents: Vec<String> = contents.into_iter().collect();
    let failure = Failure::usage("it is not said which content recovery shall use");
    Ok(if contents.is_empty() {
        failure.with_hint(format!("the archive has none of {name}"))
    } else {
        failure.with_hint(format!(
            "--keep one of {}; walpoint list --wal {name} shows them",
            contents.join(", ")
        ))
    })
}
