//! What one client asks for, and what becomes of it.

use std::collections::HashMap;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session as Connection, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, Pty as PtyMode, Sig};
use tokio::sync::Notify;

use super::USER;
use super::forward::{self, AgentSocket, Forward};
use super::input::{Feeder, HELD_WINDOW, WINDOW};
use super::keys::Keys;
use super::programs::{Programs, Start};
use super::session::Session;
use super::terminal::Request as TerminalRequest;
use crate::process::Size;

/// Channels of one connection; each may be a program.
const MAX_CHANNELS: usize = 256;

/// The server's side of one client.
pub struct Client {
    keys: Keys,
    programs: Programs,
    logged_in: Arc<Notify>,
    links: HashMap<ChannelId, Link>,
    /// The client's agent, once it has offered it.
    agent: Option<AgentSocket>,
}

/// What is behind a channel.
enum Link {
    Session(Session),
    Forward(Forward),
}

impl Link {
    fn feeder(&self) -> &Feeder {
        match self {
            Self::Session(session) => session.feeder(),
            Self::Forward(forward) => forward.feeder(),
        }
    }
}

impl Client {
    /// A client that shows one of `keys` may run `programs`; `logged_in` is told.
    pub fn new(keys: Keys, programs: Programs, logged_in: Arc<Notify>) -> Self {
        Self { keys, programs, logged_in, links: HashMap::new(), agent: None }
    }

    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        if user == USER && self.keys.contains(key) { Auth::Accept } else { Auth::reject() }
    }

    fn session(&mut self, channel: ChannelId) -> Option<&mut Session> {
        match self.links.get_mut(&channel) {
            Some(Link::Session(session)) => Some(session),
            _ => None,
        }
    }

    /// True if one more channel may be opened.
    fn has_room(&mut self) -> bool {
        self.links.retain(|_, link| match link {
            // Its channel may never have been opened, and is then not closed either.
            Link::Forward(forward) => !forward.is_over(),
            Link::Session(_) => true,
        });
        self.links.len() < MAX_CHANNELS
    }

    fn start(
        &mut self,
        channel: ChannelId,
        start: Start<'_>,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let handle = connection.handle();
        let agent = self.agent.as_ref().map(|agent| agent.path().to_owned());
        let started = match self.links.get_mut(&channel) {
            Some(Link::Session(session)) => {
                session.start(channel, start, &self.programs, agent.as_deref(), handle)
            }
            _ => false,
        };
        answer(started, channel, connection)
    }
}

/// Answers a request of a channel, if the client wants an answer.
fn answer(success: bool, channel: ChannelId, connection: &mut Connection) -> Result<(), Error> {
    if success { connection.channel_success(channel) } else { connection.channel_failure(channel) }
}

impl Handler for Client {
    type Error = Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        Ok(self.judge(user, key.public_key))
    }

    async fn auth_succeeded(&mut self, _: &mut Connection) -> Result<(), Error> {
        self.logged_in.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Connection,
    ) -> Result<(), Error> {
        if self.has_room() {
            self.links.insert(channel.id(), Link::Session(Session::new(channel)));
            reply.accept().await;
        } else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Connection,
    ) -> Result<(), Error> {
        match u16::try_from(port) {
            Ok(port) if self.has_room() => {
                let id = channel.id();
                let connect = forward::connect(host.to_owned(), port);
                self.links.insert(id, Link::Forward(Forward::start(channel, connect, reply)));
            }
            _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Connection,
    ) -> Result<(), Error> {
        if self.has_room() {
            let id = channel.id();
            let connect = tokio::net::UnixStream::connect(path.to_owned());
            self.links.insert(id, Link::Forward(Forward::start(channel, connect, reply)));
        } else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut Connection,
    ) -> Result<(), Error> {
        if let Some(link) = self.links.get(&channel) {
            link.feeder().give(data).await;
        }
        Ok(())
    }

    fn adjust_window(&mut self, channel: ChannelId, _: u32) -> u32 {
        match self.links.get(&channel) {
            Some(link) if link.feeder().is_behind() => HELD_WINDOW,
            _ => WINDOW,
        }
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Connection) -> Result<(), Error> {
        if let Some(link) = self.links.get(&channel) {
            link.feeder().end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Connection) -> Result<(), Error> {
        self.links.remove(&channel);
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let set = self.session(channel).is_some_and(|session| session.set_variable(name, value));
        answer(set, channel, connection)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        modes: &[(PtyMode, u32)],
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let request = TerminalRequest {
            term: term.to_owned(),
            size: size(rows, cols),
            modes: modes.to_vec(),
        };
        let taken = self.session(channel).is_some_and(|session| session.want_terminal(request));
        answer(taken, channel, connection)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let changed = self.session(channel).is_some_and(|session| session.resize(size(rows, cols)));
        answer(changed, channel, connection)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        self.start(channel, Start::Shell, connection)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        connection: &mut Connection,
    ) -> Result<(), Error> {
        self.start(channel, Start::Command(command), connection)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        match name {
            "sftp" => self.start(channel, Start::Sftp, connection),
            _ => answer(false, channel, connection),
        }
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        connection: &mut Connection,
    ) -> Result<bool, Error> {
        if self.session(channel).is_none() {
            return Ok(false);
        }
        if self.agent.is_none() {
            // Without it the session is as one of a client that has no agent.
            self.agent = AgentSocket::listen(connection.handle(), self.programs.work()).ok();
        }
        Ok(self.agent.is_some())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _: &mut Connection,
    ) -> Result<(), Error> {
        if let Some(session) = self.session(channel) {
            session.signal(&signal);
        }
        Ok(())
    }
}

fn size(rows: u32, cols: u32) -> Size {
    let narrow = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    Size { rows: narrow(rows), cols: narrow(cols) }
}
