//! Restarting a session with the stock client.

use anyhow::Result;

use backendai_tests::TestCluster;

use crate::support::{execute, wait_nothing_left};

#[tokio::test]
async fn a_restart_keeps_files_and_forgets_variables() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let signed = cluster.signed(&cluster.identities.user1);
    client.run(&["session", "create", "-t", "phoenix", "python"]).await?.success();
    let code = "x = 41\n\
        open('/home/work/kept', 'w').write('ash')\n\
        open('/tmp/lost', 'w').write('smoke')\n\
        print('written')";
    assert_eq!(execute(&signed, "phoenix", code).await?, "written\n");
    let containers = cluster.containers().await?;

    let output = client.run(&["session", "restart", "phoenix"]).await?.success();
    assert!(output.all().contains("Done."), "{output}");
    let code = "import os\nprint('x' in globals(), open('/home/work/kept').read(), \
        os.path.exists('/tmp/lost'))";
    assert_eq!(execute(&signed, "phoenix", code).await?, "False ash False\n");
    let renewed = cluster.containers().await?;
    assert_eq!((containers.len(), renewed.len()), (1, 1));
    assert_ne!(containers[0].id, renewed[0].id);

    let output = client.run(&["session", "restart", "nobody"]).await?;
    assert!(output.all().contains("No such session"), "{output}");
    client.run(&["session", "rm", "phoenix"]).await?.success();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
