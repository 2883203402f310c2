//! The client: one tunnel from a local UDP port to a target.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::ext::Protocol;
use h3::ConnectionState;
use h3_datagram::datagram_handler::HandleDatagramsExt;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{pem::PemObject, CertificateDer};
use tokio::net::{lookup_host, UdpSocket};

use crate::{stopped, tunnel, Failure, Options};

const LOST: i32 = 7;
const REFUSED: i32 = 8;
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// Runs until the tunnel is over or a signal comes; the exit status.
pub async fn run(options: &Options) -> Result<i32, Failure> {
    let (host, port) = options.need("target")?.rsplit_once(':').ok_or("--target takes HOST:PORT")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').replace(':', "%3A");
    let url = options.need("template")?.replace("{target_host}", &host).replace("{target_port}", port);
    let mut request = Request::connect(&url).header("capsule-protocol", "?1").extension(Protocol::CONNECT_UDP);
    if let Some(value) = options.text("authorization") {
        request = request.header("authorization", value);
    }
    let request = request.body(())?;
    let authority = request.uri().authority().ok_or("--template has no host")?.clone();
    let local = UdpSocket::bind(options.need("forward")?).await?;

    let connection = connect(options, authority.host(), authority.as_str()).await?;
    let quic = h3_quinn::Connection::new(connection.clone());
    let mut builder = h3::client::builder();
    let (mut driver, mut requests) =
        builder.enable_extended_connect(true).enable_datagram(true).build::<_, _, Bytes>(quic).await?;
    let mut datagrams = driver.get_datagram_reader();
    let driving = tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
    if !settings_allow(&requests).await {
        eprintln!("refused: SETTINGS without extended CONNECT or H3_DATAGRAM");
        return Ok(REFUSED);
    }
    let mut stream = requests.send_request(request).await?;
    let response = stream.recv_response().await?;
    if !response.status().is_success() {
        eprintln!("refused: {}", response.status());
        return Ok(REFUSED);
    }
    println!(r#"{{"ready":"client"}}"#);

    let id = stream.id(); // now: h3-quinn 0.0.10 panics when asked while it waits for data
    let mut application = None;
    let mut payload = vec![0; 65_535];
    let words = loop {
        tokio::select! {
            _ = stopped() => {
                connection.close(tunnel::H3_NO_ERROR.into(), b"");
                return Ok(0);
            }
            received = local.recv_from(&mut payload) => {
                let (length, from) = received?;
                application = Some(from);
                tunnel::send(&connection, id, &payload[..length]);
            }
            datagram = datagrams.read_datagram() => match datagram {
                Ok(datagram) => {
                    if let (Some(to), Some(payload)) = (application, tunnel::unwrap(datagram.into_payload())) {
                        let _ = local.send_to(&payload, to).await;
                    }
                }
                Err(error) => break error.to_string(),
            },
            capsules = stream.recv_data() => match capsules {
                Ok(Some(_)) => {}
                Ok(None) => break "the proxy ended the tunnel".to_string(),
                Err(error) => break error.to_string(),
            },
        }
    };
    driving.abort();
    eprintln!("{words}");
    Ok(LOST)
}

async fn connect(options: &Options, name: &str, authority: &str) -> Result<quinn::Connection, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(options.need("ca")?)? {
        roots.add(certificate?)?;
    }
    let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(tunnel::transport());
    let proxy = lookup_host(authority).await?.next().ok_or("the proxy has no address")?;
    let any = if proxy.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut endpoint = quinn::Endpoint::client(any.parse()?)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint.connect(proxy, name)?.await?)
}

/// Whether the proxy's SETTINGS come and allow what we ask for (RFC 9220 §3, RFC 9297 §2.1.1). h3 tells nobody that
/// they have come, so we look again and again.
async fn settings_allow(connection: &impl ConnectionState) -> bool {
    let arrive = async {
        while !(connection.settings().enable_extended_connect() && connection.settings().enable_datagram()) {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(SETTINGS_TIMEOUT, arrive).await.is_ok()
}
