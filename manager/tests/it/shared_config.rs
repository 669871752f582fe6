//! The shared configuration as requests read it.

use backendai_manager::shared_config::{ManagerStatus, SharedConfig};
use backendai_service::etcd::{Etcd, EtcdAddress};

use super::support::PrivateEtcd;

#[tokio::test]
async fn the_last_known_values_outlive_etcd() {
    let server = PrivateEtcd::start().await;
    let address =
        EtcdAddress { addr: server.addr.clone(), namespace: "x".into(), credentials: None };
    let etcd = Etcd::connect(&address).await.unwrap();
    let shared = SharedConfig::new(etcd.clone());
    let late = SharedConfig::new(etcd.clone());
    assert_eq!(shared.manager_status().await.unwrap(), ManagerStatus::Running);
    assert_eq!(shared.announcement().await.unwrap(), None);

    etcd.put("manager/status", "frozen").await.unwrap();
    etcd.put("manager/announcement", "maintenance at noon").await.unwrap();
    shared.invalidate();
    assert_eq!(shared.manager_status().await.unwrap(), ManagerStatus::Frozen);
    assert_eq!(shared.announcement().await.unwrap().as_deref(), Some("maintenance at noon"));

    server.stop();
    shared.invalidate();
    assert_eq!(shared.manager_status().await.unwrap(), ManagerStatus::Frozen);
    assert!(late.manager_status().await.is_err(), "nothing was ever read");
}
