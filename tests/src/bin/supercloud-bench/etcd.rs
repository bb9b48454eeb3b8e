//! A three-member etcd on this machine, as an operator would set it up: TLS with certificates for clients and between members, data on the
//! same disk as ours. Knows nothing of Supercloud.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use supercloud_tests::{Outcome, Wrong, ports::Ports, process::Process, wait, wrong};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::load::Writer;

/// etcd's API, as far as it is spoken here.
#[allow(missing_docs, clippy::all, unreachable_pub)]
mod wire {
    tonic::include_proto!("etcdserverpb");
}

use wire::{PutRequest, StatusRequest, kv_client::KvClient, maintenance_client::MaintenanceClient};

/// Members.
const SIZE: usize = 3;
/// Where all of them are reached.
const HOST: &str = "127.0.0.1";
/// Bytes of a value: as many as one of our specs.
pub(crate) const VALUE_BYTES: usize = 300;
/// Keys that are written in turn.
pub(crate) const KEYS: u64 = 1_000;

/// The members, which end with this.
pub(crate) struct Etcd {
    members: Vec<Process>,
    clients: Vec<u16>,
    identity: Tls,
}

/// One certificate for all members and clients: each is a server and a client at the same address.
struct Tls {
    authority: String,
    certificate: String,
    key: String,
}

impl Tls {
    fn new() -> Outcome<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_key = KeyPair::generate()?;
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let mut leaf = CertificateParams::new(vec![HOST.to_owned()])?;
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &issuer)?.pem();
        Ok(Self { authority: authority_pem, certificate, key: key.serialize_pem() })
    }

    fn save(&self, folder: &Path) -> Outcome<[String; 3]> {
        let mut paths: [String; 3] = Default::default();
        let files = [("ca.pem", &self.authority), ("cert.pem", &self.certificate), ("key.pem", &self.key)];
        for (path, (name, text)) in paths.iter_mut().zip(files) {
            let file = folder.join(name);
            fs::write(&file, text)?;
            *path = file.to_string_lossy().into_owned();
        }
        Ok(paths)
    }
}

impl Etcd {
    /// Starts the members with their data in `folder`, and waits until one of them leads.
    pub(crate) fn start(folder: &Path, ports: &mut Ports) -> Outcome<Self> {
        let folder = folder.join("etcd");
        fs::create_dir_all(&folder)?;
        let identity = Tls::new()?;
        let files = identity.save(&folder)?;
        let mut both = || Ok((ports.one()?, ports.one()?));
        let addresses: Vec<(u16, u16)> = (0..SIZE).map(|_| both()).collect::<Outcome<_>>()?;
        let members = (0..SIZE)
            .map(|number| start_member(number, &addresses, &folder, &files))
            .collect::<Outcome<_>>()?;
        let clients = addresses.into_iter().map(|(client, _)| client).collect();
        Ok(Self { members, clients, identity })
    }

    /// Numbers of the members' processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Process::pid).collect()
    }

    /// A connection of its own to one member.
    async fn open(&self, member: usize) -> Outcome<Channel> {
        let Tls { authority, certificate, key } = &self.identity;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority))
            .identity(Identity::from_pem(certificate, key))
            .domain_name(HOST);
        let address = format!("https://{HOST}:{}", self.clients[member]);
        Ok(Endpoint::from_shared(address)?.tls_config(tls)?.tcp_nodelay(true).connect().await?)
    }

    /// Number and version of the member that leads, once one does.
    pub(crate) async fn leader(&self) -> Outcome<(usize, String)> {
        let begun = tokio::time::Instant::now();
        loop {
            for member in 0..SIZE {
                if let Ok((true, version)) = self.leads(member).await {
                    return Ok((member, version));
                }
            }
            if begun.elapsed() > wait::SOON {
                return wrong("no member of etcd leads");
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    async fn leads(&self, member: usize) -> Outcome<(bool, String)> {
        let mut client = MaintenanceClient::new(self.open(member).await?);
        let status = client.status(StatusRequest {}).await?.into_inner();
        let own = status.header.map(|header| header.member_id);
        Ok((status.leader != 0 && own == Some(status.leader), status.version))
    }

    /// So many connections to the member that leads, or else to one that follows.
    pub(crate) async fn writers(&self, count: usize, leader: usize, follow: bool) -> Outcome<Vec<Put>> {
        let member = if follow { (leader + 1) % SIZE } else { leader };
        let mut writers = Vec::new();
        for _ in 0..count {
            writers.push(Put(KvClient::new(self.open(member).await?)));
        }
        Ok(writers)
    }
}

fn start_member(
    number: usize,
    addresses: &[(u16, u16)],
    folder: &Path,
    [ca, certificate, key]: &[String; 3],
) -> Outcome<Process> {
    let name = |number: usize| format!("m{number}");
    let url = |port: u16| format!("https://{HOST}:{port}");
    let peers: Vec<String> =
        (0..).zip(addresses).map(|(number, (_, peer))| format!("{}={}", name(number), url(*peer))).collect();
    let (client, peer) = addresses[number];
    let own = name(number);
    let data: PathBuf = folder.join(&own);
    let (client, peer) = (url(client), url(peer));
    let mut command = Command::new("etcd");
    command.args(["--name", &own, "--data-dir", &data.to_string_lossy()]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"]);
    command.args(["--cert-file", certificate, "--key-file", key, "--trusted-ca-file", ca]);
    command.args(["--peer-cert-file", certificate, "--peer-key-file", key, "--peer-trusted-ca-file", ca]);
    command.args([
        "--client-cert-auth",
        "--peer-client-cert-auth",
        "--logger",
        "zap",
        "--log-level",
        "error",
    ]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    let started = Process::start(&own, &mut command, &folder.join(format!("{own}.log")));
    started.map_err(|error| Wrong(format!("etcd (Debian's package etcd-server): {error}")).into())
}

/// A client of etcd that puts.
#[derive(Clone)]
pub(crate) struct Put(KvClient<Channel>);

impl Writer for Put {
    async fn write(&mut self, number: u64) -> Result<(), Status> {
        let key = format!("bench-{:04}", number % KEYS).into_bytes();
        self.0.put(PutRequest { key, value: value(number) }).await.map(|_| ())
    }
}

/// A value that is another one each time.
fn value(number: u64) -> Vec<u8> {
    let mut value = vec![b'x'; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_differ_and_have_their_size() {
        assert_ne!(value(1), value(2));
        assert_eq!((value(1).len(), value(u64::MAX).len()), (VALUE_BYTES, VALUE_BYTES));
    }

    #[test]
    fn a_certificate_is_for_the_address_of_all_members() -> Outcome {
        let tls = Tls::new()?;
        for text in [&tls.authority, &tls.certificate] {
            assert!(text.starts_with("-----BEGIN CERTIFICATE"));
        }
        assert!(tls.key.contains("PRIVATE KEY"));
        Ok(())
    }
}
