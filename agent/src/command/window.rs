//! `window`: every moment that can be recovered to, and the gaps between.

use super::list;
use crate::cli::WindowArgs;
use crate::config::Settings;
use crate::exit::{Ending, Failure};
use crate::{cluster_choice, output};
use serde_json::json;
use walpoint_archive::catalog::CatalogScope;
use walpoint_pitr::plan::Moment;
use walpoint_pitr::window::{Window, window};
use walpoint_wal::SystemIdentifier;

/// Carries out `window`.
pub async fn run(settings: &Settings, args: &WindowArgs, as_json: bool) -> Result<Ending, Failure> {
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let mut catalog = chosen.archive.catalog(CatalogScope::All).await?;
    let window = match window(&chosen.archive, &catalog).await {
        // The pieces of a tail go when the whole segment has come, also while somebody looks.
        Err(error) if error.is_not_found() => {
            // Two large ones would not fit.
            catalog.wal.clear();
            catalog = chosen.archive.catalog(CatalogScope::All).await?;
            window(&chosen.archive, &catalog).await?
        }
        shown => shown?,
    };
    let cluster = chosen.cluster.system_identifier;
    let text = if as_json {
        let damaged = list::unreadable(&catalog);
        output::json_line(
            &json!({ "cluster": cluster, "ranges": window.ranges, "gaps": window.gaps, "exact": window.exact, "damaged": damaged }),
        )?
    } else {
        text(cluster, &window) + &list::unreadable_text(&catalog)
    };
    output::result(&text)?;
    Ok(Ending::DONE)
}

fn text(cluster: SystemIdentifier, window: &Window) -> String {
    let mut text = format!("cluster {cluster}\n");
    if window.ranges.is_empty() {
        text += "no moment can be reached: there is no complete backup with its WAL\n";
    } else {
        let header = ["timeline", "from time", "from LSN", "to time", "to LSN", "backup"];
        let rows: Vec<Vec<String>> = window
            .ranges
            .iter()
            .map(|range| {
                vec![
                    range.timeline.to_string(),
                    time(&range.from),
                    range.from.lsn.to_string(),
                    time(&range.to),
                    range.to.lsn.to_string(),
                    range.backup.to_string(),
                ]
            })
            .collect();
        text += &output::table(&header, &rows);
    }
    if !window.exact {
        text += "made without the key, by metadata alone: an end can lie up to a segment later, and a gap may be \
                 none; set [encryption] identity_file for the exact window\n";
    }
    for gap in &window.gaps {
        text += &format!("gap on timeline {}: {} to {}: {}\n", gap.timeline, gap.first, gap.last, gap.reason);
    }
    text
}

fn time(moment: &Moment) -> String {
    moment.time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
