//! Requests made up from the OpenAPI document: none may be answered with a failure of ours.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use backendai_tests::client::Venv;
use backendai_tests::progress::Progress;
use backendai_tests::{Layout, TestCluster};

/// Requests for each operation: enough for the shapes of values, few enough for every run.
const EXAMPLES: &str = "12";
/// Longer than the run takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Signs what schemathesis sends, as the stock client does.
const HOOKS: &str = r#"
import hashlib, hmac, os
from datetime import datetime, timezone
from urllib.parse import urlsplit

import requests.auth
import schemathesis

ACCESS, SECRET, VERSION = os.environ["ACCESS_KEY"], os.environ["SECRET_KEY"], "v7.20230615"


class Signature(requests.auth.AuthBase):
    def __call__(self, request):
        url = urlsplit(request.url)
        target = url.path + ("?" + url.query if url.query else "")
        kind = request.headers.setdefault("Content-Type", "text/plain").split(";")[0].strip()
        date = datetime.now(timezone.utc).isoformat()
        text = "\n".join([request.method, target, date, "host:" + url.netloc,
                          "content-type:" + kind, "x-backendai-version:" + VERSION,
                          hashlib.sha256(b"").hexdigest()])
        sign = lambda key, data: hmac.new(key, data.encode(), "sha256").digest()
        key = sign(sign(SECRET.encode(), date[:10].replace("-", "")), url.netloc)
        request.headers["Date"] = date
        request.headers["X-BackendAI-Version"] = VERSION
        request.headers.pop("X-BackendAI-Date", None)
        request.headers["Authorization"] = (
            "BackendAI signMethod=HMAC-SHA256, credential=%s:%s" % (ACCESS, sign(key, text).hex()))
        return request


schemathesis.auth.set_from_requests(Signature())
"#;

#[tokio::test]
async fn requests_made_up_from_the_document_never_fail_on_our_side() -> Result<()> {
    let layout = Layout::discover()?;
    let venv = Venv::schemathesis(&layout, &Progress::silent()).await?;
    let cluster = TestCluster::builder().agents(0).start().await?;
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("hooks.py"), HOOKS)?;
    for identity in [&cluster.identities.user1, &cluster.identities.superadmin] {
        let run = Command::new(venv.program())
            .args(["run", "--checks", "not_a_server_error", "--phases", "fuzzing"])
            // What a superadmin could freeze would only be refused from then on.
            .args(["--exclude-path", "/manager/status"])
            // These answer for as long as somebody listens.
            .args(["--exclude-path-regex", "^/(events|stream)/"])
            .args(["--generation-with-security-parameters", "false"])
            .args(["--generation-database", "none", "--seed", "7", "--no-color"])
            .args(["--max-examples", EXAMPLES, "--request-timeout", "30"])
            .arg(format!("{}/spec", cluster.plan.endpoint()))
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", dir.path())
            .env("ACCESS_KEY", &identity.access_key)
            .env("SECRET_KEY", &identity.secret_key)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LIMIT, run).await.context("schemathesis hangs")??;
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "as {}:\n{shown}", identity.email);
        // A run whose requests were all refused would prove nothing.
        let refused = shown.contains("  - GET /auth/role\n");
        assert!(!refused, "the signature is not accepted:\n{shown}");
    }
    cluster.stop().await
}
