//! The typed API over every carrier.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use backendai_rpc::agent_api::{
    AgentApi, AgentClient, AgentService, CommitKernel, CommitState, Complete, CreateKernels,
    DestroyKernels, DeviceHealth, Execute, ExecuteReply, Hello, HelloReply, KernelCall, KernelLog,
    OpenStream, RestartKernels, RunStatus, STREAM_TOKEN_LEN, ServiceStart, SessionNetwork,
    SessionNetworks, StartService, StopService, StreamTarget, StreamTicket,
};
use backendai_rpc::call::{CallContext, CallError, ErrorKind, RemoteError, Service};
use backendai_rpc::statistics::{Metrics, Packed};
use backendai_types::KernelId;

use crate::support::{PATIENCE, PEER, Probe, every_carrier};

/// An agent that knows one kernel and lets nobody older than epoch 5 command it.
struct FakeAgent {
    kernel: KernelId,
}

const LOG_BYTES: usize = 10 << 20;

#[async_trait]
impl AgentApi for FakeAgent {
    async fn hello(&self, context: CallContext, _: Hello) -> Result<HelloReply, RemoteError> {
        Ok(HelloReply {
            agent_id: context.peer.unwrap_or_else(|| "nobody".into()),
            version: context.request_id.unwrap_or_default(),
        })
    }

    async fn create_kernels(
        &self,
        context: CallContext,
        _: CreateKernels,
    ) -> Result<(), RemoteError> {
        check_epoch(&context)
    }

    async fn restart_kernels(
        &self,
        context: CallContext,
        request: RestartKernels,
    ) -> Result<(), RemoteError> {
        check_epoch(&context)?;
        request.kernels.iter().try_for_each(|restart| self.check(restart.spec.kernel_id))
    }

    async fn destroy_kernels(
        &self,
        context: CallContext,
        request: DestroyKernels,
    ) -> Result<(), RemoteError> {
        check_epoch(&context)?;
        request.kernels.iter().try_for_each(|(kernel, _)| self.check(*kernel))
    }

    async fn create_network(
        &self,
        context: CallContext,
        _: SessionNetwork,
    ) -> Result<(), RemoteError> {
        check_epoch(&context)
    }

    async fn remove_networks(
        &self,
        context: CallContext,
        _: SessionNetworks,
    ) -> Result<(), RemoteError> {
        check_epoch(&context)
    }

    async fn execute(&self, _: CallContext, request: Execute) -> Result<ExecuteReply, RemoteError> {
        self.check(request.kernel_id)?;
        Ok(ExecuteReply {
            run_id: request.run_id.unwrap_or_else(|| "new".into()),
            status: RunStatus::Finished,
            exit_code: Some(0),
            is_password: None,
            console: Vec::new(),
            last_record: 0,
        })
    }

    async fn interrupt(&self, _: CallContext, request: KernelCall) -> Result<(), RemoteError> {
        self.check(request.kernel_id)
    }

    async fn complete(
        &self,
        _: CallContext,
        request: Complete,
    ) -> Result<Vec<String>, RemoteError> {
        Ok(vec![format!("{}nt", request.code)])
    }

    async fn start_service(
        &self,
        _: CallContext,
        request: StartService,
    ) -> Result<ServiceStart, RemoteError> {
        self.check(request.kernel_id)?;
        Ok(ServiceStart::Failed(format!("unsupported service: {}", request.name)))
    }

    async fn stop_service(&self, _: CallContext, request: StopService) -> Result<(), RemoteError> {
        self.check(request.kernel_id)
    }

    async fn open_stream(
        &self,
        _: CallContext,
        request: OpenStream,
    ) -> Result<StreamTicket, RemoteError> {
        self.check(request.kernel_id)?;
        Ok(StreamTicket { port: 30000, token: [7; STREAM_TOKEN_LEN] })
    }

    async fn kernel_metrics(
        &self,
        _: CallContext,
        request: KernelCall,
    ) -> Result<Option<Packed<Metrics>>, RemoteError> {
        self.check(request.kernel_id)?;
        Ok(None)
    }

    async fn kernel_log(
        &self,
        _: CallContext,
        request: KernelCall,
    ) -> Result<KernelLog, RemoteError> {
        self.check(request.kernel_id)?;
        Ok(KernelLog { bytes: (0..LOG_BYTES).map(|index| (index % 251) as u8).collect() })
    }

    async fn commit(
        &self,
        _: CallContext,
        request: CommitKernel,
    ) -> Result<CommitState, RemoteError> {
        self.check(request.kernel_id)?;
        Ok(CommitState::Ongoing { bytes: 0 })
    }

    async fn hardware(
        &self,
        _: CallContext,
        _: Hello,
    ) -> Result<BTreeMap<String, DeviceHealth>, RemoteError> {
        Ok(BTreeMap::new())
    }
}

impl FakeAgent {
    fn check(&self, kernel: KernelId) -> Result<(), RemoteError> {
        if kernel == self.kernel {
            return Ok(());
        }
        let text = format!("there is no kernel {kernel} here");
        Err(RemoteError::new(ErrorKind::KernelNotFound, text))
    }
}

fn check_epoch(context: &CallContext) -> Result<(), RemoteError> {
    match context.epoch {
        5.. => Ok(()),
        old => Err(RemoteError::new(ErrorKind::StaleEpoch, format!("{old} < 5"))),
    }
}

#[tokio::test]
async fn every_carrier_carries_the_typed_api() {
    let kernel = KernelId::random();
    let service: Arc<dyn Service> = Arc::new(AgentService(Arc::new(FakeAgent { kernel })));
    for reach in every_carrier(&service) {
        let client = AgentClient(reach.client);
        let name = reach.name;

        let context = CallContext {
            epoch: 5,
            request_id: Some("r-9".into()),
            peer: Some("what a caller claims to be".into()),
        };
        let leader = client.with_context(context);
        let hello = leader.hello(&Hello {}).await.unwrap();
        let expected = if name == "plain" { "nobody" } else { PEER };
        assert_eq!((&*hello.agent_id, &*hello.version), (expected, "r-9"), "{name}");

        let completed = Complete { kernel_id: kernel, code: "pri".into(), cursor: None };
        assert_eq!(client.complete(&completed).await.unwrap(), ["print"], "{name}");

        let log = client.kernel_log(&KernelCall { kernel_id: kernel }).await.unwrap();
        assert_eq!(log.bytes.len(), LOG_BYTES, "{name}");
        assert!(log.bytes.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8), "{name}");

        let target = StreamTarget::Terminal { from: Some(1 << 40) };
        let ticket = client.open_stream(&OpenStream { kernel_id: kernel, target }).await.unwrap();
        assert_eq!((ticket.port, ticket.token), (30000, [7; STREAM_TOKEN_LEN]), "{name}");
        assert!(!format!("{ticket:?}").contains("7, 7"), "tokens are not logged");

        let stranger = KernelId::random();
        let error = client.interrupt(&KernelCall { kernel_id: stranger }).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Remote(e) if e.kind == ErrorKind::KernelNotFound
                && e.message.contains(&stranger.to_string())),
            "{name}: {error}"
        );

        let nothing = DestroyKernels { kernels: Vec::new(), reason: "user-requested".into() };
        let error = client.destroy_kernels(&nothing).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Remote(e) if e.kind == ErrorKind::StaleEpoch),
            "{name}: {error}"
        );
        leader.destroy_kernels(&nothing).await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_method_is_said_to_be_unknown() {
    let service: Arc<dyn Service> =
        Arc::new(AgentService(Arc::new(FakeAgent { kernel: KernelId::random() })));
    for reach in every_carrier(&service) {
        let error = reach.client.call::<_, ()>("levitate", &(), PATIENCE).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Remote(e) if e.kind == ErrorKind::UnknownMethod),
            "{}: {error}",
            reach.name
        );
    }
}

#[tokio::test]
async fn calls_are_answered_in_the_order_in_which_they_finish() {
    const CALLS: u64 = 64;
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    for reach in every_carrier(&service) {
        // Each finishes only after the one sent after it, so all must be in flight.
        probe.next.send_replace(CALLS - 1);
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..CALLS {
            let client = reach.client.clone();
            calls.spawn(async move {
                client.call::<_, u64>("countdown", &number, PATIENCE).await.unwrap()
            });
        }
        let mut answers = calls.join_all().await;
        answers.sort_unstable();
        assert_eq!(answers, (0..CALLS).collect::<Vec<_>>(), "{}", reach.name);
    }
}
