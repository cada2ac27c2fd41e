//! A server in a process of its own, for the tests that kill it: `weft-api-server FOLDER` prints its URL and serves
//! until it dies.

use std::io::Write;
use std::path::Path;
use tokio_util::sync::CancellationToken;
use weft_control::Control;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("usage: weft-api-server FOLDER")?;
    let control = Control::bind(weft_tests_api::config(Path::new(&folder))).await?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", control.api_address())?;
    out.flush()?;
    control.run(CancellationToken::new()).await?;
    Ok(())
}
