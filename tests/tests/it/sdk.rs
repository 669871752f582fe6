//! Sessions by way of the stock client's SDK.

use anyhow::Result;

use backendai_tests::TestCluster;

use crate::support::wait_nothing_left;

#[tokio::test]
async fn a_program_uses_every_method_of_the_sdk() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let output = client.python(include_str!("sdk.py")).await?.success();
    assert!(output.stdout.contains("the SDK works"), "{output}");
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
