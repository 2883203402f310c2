//! The proxy: one socket per tunnel, connected to its target. Capsules are read and discarded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h3::ext::Protocol;
use h3::quic::StreamId;
use h3::server::RequestStream;
use h3_datagram::datagram_handler::HandleDatagramsExt;
use http::{Request, Response};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
use tokio::net::UdpSocket;

use crate::{stopped, tunnel, Failure, Options};

const UDP_PATH: &str = "/.well-known/masque/udp/{target_host}/{target_port}/";

type Tunnels = Arc<Mutex<HashMap<StreamId, Arc<UdpSocket>>>>;
type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

struct Settings {
    udp_path: String,
    authorization: Option<String>,
}

pub async fn run(options: &Options) -> Result<(), Failure> {
    let chain = CertificateDer::pem_file_iter(options.need("certificate")?)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(options.need("key")?)?;
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(tunnel::transport());
    let endpoint = quinn::Endpoint::server(config, options.need("listen")?.parse()?)?;
    let settings = Arc::new(Settings {
        udp_path: options.text("udp-path").unwrap_or(UDP_PATH).to_string(),
        authorization: options.text("authorization").map(str::to_string),
    });
    println!(r#"{{"ready":"proxy","listen":"{}"}}"#, endpoint.local_addr()?);
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let settings = settings.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(incoming, settings).await {
                    eprintln!("connection: {error}");
                }
            });
        }
    });
    stopped().await?;
    endpoint.close(tunnel::H3_NO_ERROR.into(), b"");
    endpoint.wait_idle().await;
    Ok(())
}

async fn serve(incoming: quinn::Incoming, settings: Arc<Settings>) -> Result<(), Failure> {
    let connection = incoming.await?;
    let quic = h3_quinn::Connection::new(connection.clone());
    let mut http: h3::server::Connection<_, Bytes> =
        h3::server::builder().enable_extended_connect(true).enable_datagram(true).build(quic).await?;
    let tunnels = Tunnels::default();
    let mut datagrams = http.get_datagram_reader();
    let known = tunnels.clone();
    let reading = tokio::spawn(async move {
        while let Ok(datagram) = datagrams.read_datagram().await {
            let socket = known.lock().expect("not poisoned").get(&datagram.stream_id()).cloned();
            if let (Some(socket), Some(payload)) = (socket, tunnel::unwrap(datagram.into_payload())) {
                let _ = socket.send(&payload).await; // an ICMP error, or a payload too long for UDP: lost
            }
        }
    });
    while let Some(request) = http.accept().await? {
        let (request, mut stream) = match request.resolve_request().await {
            Ok(resolved) => resolved,
            Err(error) => {
                eprintln!("request: {error}"); // h3 has answered what it does not understand
                continue;
            }
        };
        match open_target(&request, &settings).await {
            Ok(socket) => {
                stream.send_response(Response::builder().header("capsule-protocol", "?1").body(())?).await?;
                let socket = Arc::new(socket);
                tunnels.lock().expect("not poisoned").insert(stream.id(), socket.clone());
                tokio::spawn(forward(connection.clone(), stream, socket, tunnels.clone()));
            }
            Err(status) => {
                let mut response = Response::builder().status(status);
                if status == 401 {
                    response = response.header("www-authenticate", "Bearer, Basic realm=\"quinn-peer\"");
                }
                stream.send_response(response.body(())?).await?;
                stream.finish().await?;
            }
        }
    }
    reading.abort();
    Ok(())
}

/// A socket connected to the target a request names, or the status to refuse it with.
async fn open_target(request: &Request<()>, settings: &Settings) -> Result<UdpSocket, u16> {
    let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if settings.authorization.is_some() && settings.authorization.as_deref() != authorization {
        return Err(401);
    }
    if request.extensions().get::<Protocol>() != Some(&Protocol::CONNECT_UDP) {
        return Err(404);
    }
    let values = tunnel::match_template(&settings.udp_path, request.uri().path()).ok_or(404u16)?;
    let [host, port] = values.as_slice() else { return Err(404) };
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or(400u16)?;
    let target = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|_| 502u16)?.next().ok_or(502u16)?;
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(|_| 500u16)?;
    socket.connect(target).await.map_err(|_| 500u16)?;
    Ok(socket)
}

/// Carries what the target answers until the client ends the stream or the connection is lost.
async fn forward(connection: quinn::Connection, mut stream: Stream, socket: Arc<UdpSocket>, tunnels: Tunnels) {
    let id = stream.id(); // now: h3-quinn 0.0.10 panics when asked while it waits for data
    let mut payload = vec![0; 65_535];
    loop {
        tokio::select! {
            received = socket.recv(&mut payload) => match received {
                Ok(length) => tunnel::send(&connection, id, &payload[..length]),
                Err(error) => eprintln!("target: {error}"), // ICMP: the next datagram may get there
            },
            capsules = stream.recv_data() => match capsules {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            },
        }
    }
    tunnels.lock().expect("not poisoned").remove(&id);
    let _ = stream.finish().await;
}
