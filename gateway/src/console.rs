//! The page, from the binary: no build step, no foreign host.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// One file of the page.
pub(crate) struct Asset {
    pub(crate) path: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) body: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the page.
pub(crate) static ASSETS: &[Asset] = &[
    Asset { path: "/", media_type: "text/html; charset=utf-8", body: include_str!("console/index.html") },
    Asset {
        path: "/console/style.css",
        media_type: "text/css; charset=utf-8",
        body: include_str!("console/style.css"),
    },
    Asset { path: "/console/app.js", media_type: SCRIPT, body: include_str!("console/app.js") },
    Asset { path: "/console/page.js", media_type: SCRIPT, body: include_str!("console/page.js") },
    Asset { path: "/console/held.js", media_type: SCRIPT, body: include_str!("console/held.js") },
    Asset { path: "/console/commands.js", media_type: SCRIPT, body: include_str!("console/commands.js") },
    Asset { path: "/console/shown.js", media_type: SCRIPT, body: include_str!("console/shown.js") },
    Asset { path: "/console/link.js", media_type: SCRIPT, body: include_str!("console/link.js") },
    Asset { path: "/console/chart.js", media_type: SCRIPT, body: include_str!("console/chart.js") },
    Asset { path: "/console/body.js", media_type: SCRIPT, body: include_str!("console/body.js") },
    Asset { path: "/console/icon.svg", media_type: "image/svg+xml", body: include_str!("console/icon.svg") },
];

/// One tag for all of them: they change together, with the binary.
pub(crate) static ETAG: LazyLock<String> = LazyLock::new(|| {
    let mut hashed = digest::Context::new(&digest::SHA256);
    ASSETS.iter().for_each(|asset| hashed.update(asset.body.as_bytes()));
    let tag = hashed.finish();
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(tag.as_ref().get(..12).unwrap_or_default()))
});
