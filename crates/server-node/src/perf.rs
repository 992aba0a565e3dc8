//! `peerloom perf ADDR`.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{cli::PerfArguments, client};

const MIB: u64 = 1024 * 1024;

pub(crate) async fn perf(arguments: PerfArguments) -> anyhow::Result<()> {
    let (node, connection) =
        client::connect(&arguments.address, arguments.private_network.as_deref()).await?;
    let upload = u64::from(arguments.upload).saturating_mul(MIB);
    // At least one byte, for its arrival is what ends the upload's time.
    let download = u64::from(arguments.download).saturating_mul(MIB).max(1);

    let bar =
        ProgressBar::with_draw_target(Some(upload.saturating_add(download)), draw_target(arguments.json));
    bar.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}")?);
    let outcome = peerloom_perf::measure(&node, &connection, upload, download, |progress| {
        bar.set_position(progress.uploaded.saturating_add(progress.downloaded));
    })
    .await;
    bar.finish_and_clear();
    let measured = client::close(node, outcome, "perf").await?;

    let [up, down] =
        [(upload, measured.upload), (download, measured.download)].map(|(bytes, time)| rate(bytes, time));
    if arguments.json {
        let line = serde_json::json!({
            "peer": connection.peer.to_string(),
            "address": connection.remote_address.to_string(),
            "upload_bytes": upload,
            "upload_seconds": measured.upload.as_secs_f64(),
            "download_bytes": download,
            "download_seconds": measured.download.as_secs_f64(),
        });
        println!("{line}");
    } else {
        println!("{} at {}", connection.peer, connection.remote_address);
        println!("upload   {up:.1} MiB/s");
        println!("download {down:.1} MiB/s");
    }
    Ok(())
}

fn draw_target(json: bool) -> ProgressDrawTarget {
    if json || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    }
}

/// MiB/s.
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / MIB as f64 / time.as_secs_f64().max(f64::EPSILON)
}
