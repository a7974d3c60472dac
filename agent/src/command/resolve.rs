//! `resolve`: the operator's decision which content of a WAL file recovery uses.

use crate::cli::ResolveArgs;
use crate::config::Settings;
use crate::exit::{Ending, Failure};
use crate::{cluster_choice, open, output};
use serde_json::json;
use std::collections::BTreeSet;
use walpoint_archive::{Archive, ArchiveError};
use walpoint_wal::WalFileName;

/// Carries out `resolve`.
pub async fn run(settings: &Settings, args: &ResolveArgs, as_json: bool) -> Result<Ending, Failure> {
    open::refuse_root(settings)?;
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let Some(keep) = args.keep else { return Err(undecided(&chosen.archive, &args.name).await?) };
    chosen.archive.resolve(&args.name, keep).await?;
    let text = if as_json {
        output::json_line(&json!({ "file": args.name, "used": keep }))?
    } else {
        format!("recovery uses content {keep} of {}; every other content is refused\n", args.name)
    };
    output::result_of_work(&text);
    Ok(Ending::DONE)
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
