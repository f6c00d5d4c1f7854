//! Plays cases: the client's part on a socket of a captured pod, the service's on a bare one in another pod.

use crate::case::{Case, GET, OK, Step};
use anyhow::{Context, Result, bail, ensure};
use qbox_tests::{DEADLINE, Dialler, PORT, Pod, Settings, World};
use rustix::net::connect_unspec;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// A trigger of `raw`, whose reply shows that its body was read.
const SAGA: &str = r#"
name = "take"
[trigger]
method = "POST"
url = "http://raw.default.svc:8080/take/{id}"
[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel.default.svc:8080/bookings/${trigger.path.id}" }
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel.default.svc:8080/bookings/${trigger.path.id}" }
[reply.success]
status = 201
json = { a = "${trigger.json.a:nothing}" }
[reply.failure]
status = 502
"#;

/// A captured pod, and a service that says what a case tells it.
pub(crate) struct Player {
    dialler: Dialler,
    service: Receiver<TcpStream>,
    address: IpAddr,
    _raw: Pod,
    _world: World,
}

impl Player {
    pub(crate) fn start() -> Result<Self> {
        let world = World::new(&Settings::saga(SAGA))?;
        let raw = world.node.pod("raw")?;
        let listener = raw.listen(PORT)?;
        Ok(Self {
            dialler: Dialler::start(&world.client)?,
            service: accept(listener),
            address: raw.ipv4(),
            _raw: raw,
            _world: world,
        })
    }

    pub(crate) fn play(&mut self, case: &Case) -> Result<()> {
        let client = self.dialler.connect(self.address, PORT)?;
        client.set_read_timeout(Some(DEADLINE))?;
        client.set_nodelay(true)?;
        let mut scene = Scene {
            client,
            service: None,
            waiting: &self.service,
        };
        for (number, step) in case.steps.iter().enumerate() {
            let played = scene.step(*step);
            played.with_context(|| format!("step {}, {step:?}", number + 1))?;
        }
        scene.end()
    }
}

/// Takes the service's connections, until nobody waits for them.
fn accept(listener: TcpListener) -> Receiver<TcpStream> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if sender.send(stream).is_err() {
                break;
            }
        }
    });
    receiver
}

/// One case's two ends.
struct Scene<'a> {
    client: TcpStream,
    service: Option<TcpStream>,
    waiting: &'a Receiver<TcpStream>,
}

impl Scene<'_> {
    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Passes(text) => self.passes(text.as_bytes()),
            Step::PassesBytes(bytes) => self.passes(bytes),
            Step::Sends(text) => Ok(self.client.write_all(text.as_bytes())?),
            Step::SendsBytes(bytes) => Ok(self.client.write_all(bytes)?),
            Step::SendsMany(count) => Ok(self.client.write_all(&vec![b'a'; count])?),
            Step::SendsTimes(count, text) => Ok(self.client.write_all(text.repeat(count).as_bytes())?),
            Step::Sees(text) => self.sees(text.as_bytes()),
            Step::Answers(text) => {
                self.service()?.write_all(text.as_bytes())?;
                expect(&mut self.client, text.as_bytes())
            }
            Step::Says(text) => Ok(self.service()?.write_all(text.as_bytes())?),
            Step::Gets(text) => expect(&mut self.client, text.as_bytes()),
            Step::GoesOn => {
                self.step(Step::Passes(GET))?;
                self.step(Step::Answers(OK))
            }
            Step::Saga(body) => self.saga(body, false),
            Step::LastSaga(body) => {
                self.saga(body, true)?;
                ended(&mut self.client)
            }
            Step::Refused(status) => self.refused(status),
            Step::Unseen => {
                // Qbox dials at once, unless it has refused the request before. A connection that comes later than this
                // is looked at by the next case.
                let mut seen = Vec::new();
                while let Ok(mut stream) = self.waiting.recv_timeout(Duration::from_millis(20)) {
                    stream.set_read_timeout(Some(DEADLINE))?;
                    // It ends in whatever way.
                    let _ = stream.read_to_end(&mut seen);
                }
                ensure!(seen.is_empty(), "the service saw {}", shown(&seen));
                Ok(())
            }
            Step::BreaksOff => match self.service()?.read_to_end(&mut Vec::new()) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                other => bail!("the service's connection ended with {other:?}"),
            },
            Step::Finishes => Ok(self.client.shutdown(Shutdown::Write)?),
            Step::Ends => {
                self.client.shutdown(Shutdown::Write)?;
                ended(self.service()?)
            }
            Step::Closes => {
                self.service()?.shutdown(Shutdown::Write)?;
                ended(&mut self.client)
            }
            // connect(2): a TCP socket is disconnected, and RST is sent.
            Step::ClientResets => Ok(connect_unspec(&self.client)?),
            Step::ServiceResets => Ok(connect_unspec(self.service()?)?),
            Step::Reset => match self.client.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                other => bail!("the client's connection went on with {other:?}"),
            },
        }
    }

    fn passes(&mut self, bytes: &[u8]) -> Result<()> {
        self.client.write_all(bytes)?;
        self.sees(bytes)
    }

    fn sees(&mut self, bytes: &[u8]) -> Result<()> {
        // Qbox gives a connection back that it has not used while it runs a saga, and then opens another.
        while self.service()?.peek(&mut [0])? == 0 {
            self.service = None;
        }
        expect(self.service()?, bytes)
    }

    /// The service's end; Qbox dials as soon as it has the client's connection.
    fn service(&mut self) -> Result<&mut TcpStream> {
        if self.service.is_none() {
            let stream = self.waiting.recv_timeout(DEADLINE);
            let stream = stream.context("no connection came to the service")?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.set_nodelay(true)?;
            self.service = Some(stream);
        }
        self.service.as_mut().context("no connection")
    }

    fn saga(&mut self, body: &str, last: bool) -> Result<()> {
        let head = head(&mut self.client)?;
        ensure!(head.starts_with("HTTP/1.1 201 "), "{head:?}");
        ensure!(head.contains("\r\nConnection: close\r\n") == last, "{head:?}");
        let got = self.body(&head)?;
        ensure!(got.contains(&format!("{body:?}")), "the reply is {got}");
        Ok(())
    }

    fn refused(&mut self, status: u16) -> Result<()> {
        let head = head(&mut self.client)?;
        ensure!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}");
        ensure!(head.contains("\r\nConnection: close\r\n"), "{head:?}");
        let body = self.body(&head)?;
        ensure!(body.contains(&format!("\"status\":{status}")), "{body:?}");
        ended(&mut self.client)?;
        // Qbox waits a second for this, so that its answer outlives whatever is still on the way to it.
        Ok(self.client.shutdown(Shutdown::Write)?)
    }

    /// The body of an answer of Qbox's own, which has a Content-Length.
    fn body(&mut self, head: &str) -> Result<String> {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.context("no Content-Length")?.parse()?];
        self.client.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?)
    }

    /// Neither end has more to say than the case has told.
    fn end(mut self) -> Result<()> {
        drop(self.client);
        let mut rest = Vec::new();
        if let Some(service) = &mut self.service {
            // It ends in whatever way.
            let _ = service.read_to_end(&mut rest);
        }
        ensure!(rest.is_empty(), "the service saw {} besides", shown(&rest));
        Ok(())
    }
}

/// A head, byte by byte, so that nothing behind it is taken.
fn head(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = stream.read(&mut byte);
        ensure!(matches!(read, Ok(1)), "{read:?} after {}", shown(&bytes));
        bytes.extend_from_slice(&byte);
    }
    Ok(String::from_utf8(bytes)?)
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while got.len() < bytes.len() && bytes.starts_with(&got) {
        let most = buffer.len().min(bytes.len() - got.len());
        match stream.read(&mut buffer[..most]) {
            Ok(count) if count > 0 => got.extend_from_slice(&buffer[..count]),
            other => bail!("{other:?} after {}", shown(&got)),
        }
    }
    ensure!(got == bytes, "it is {}", shown(&got));
    Ok(())
}

fn ended(stream: &mut TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).context("no orderly end")?;
    ensure!(rest.is_empty(), "more came before the end: {}", shown(&rest));
    Ok(())
}

fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}
