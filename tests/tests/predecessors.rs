//! The promise: a successor goes on with what it was given, whatever becomes of the process that gave it, and leaves a process alone
//! that goes on itself. The old process is one that this test plays.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    time::Duration,
};

use pgweir_tests::{Program, Running, Signal, eventually, free_port, send_signal};

const SOON: Duration = Duration::from_secs(10);

/// The process id that the old process tells.
const OLD_PID: u32 = 4_194_000;

/// An old process that answers as the test wants, and its successor.
struct Scene {
    successor: Running,
    console: UnixStream,
    systemd: UnixDatagram,
    program: Program,
}

impl Scene {
    /// The successor has asked for everything.
    fn begin() -> Self {
        let program = Program::new();
        let port = free_port();
        program.write(
            "pgweir.ini",
            &format!(
                "[databases]\n* = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_port = {port}\n\
                 unix_socket_dir = {{dir}}\nlogfile = {{dir}}/log\nauth_type = any\n"
            ),
        );
        let door = program.path(&format!(".s.PGSQL.{port}"));
        let listener = UnixListener::bind(&door).expect("a directory of ours");
        let systemd = UnixDatagram::bind(program.path("notify")).expect("a directory of ours");
        systemd
            .set_read_timeout(Some(SOON))
            .expect("a time above zero");
        for path in [&*door, &*program.path("notify")] {
            let open = fs::Permissions::from_mode(0o777);
            fs::set_permissions(path, open).expect("a file of ours");
        }
        let successor = Running::start(
            program
                .command()
                .args(["-R", "pgweir.ini"])
                .env("NOTIFY_SOCKET", program.path("notify")),
        );
        let mut console = accept(&listener);
        assert!(read_message(&mut console).starts_with(b"QHANDOVER 2;"));
        Self {
            successor,
            console,
            systemd,
            program,
        }
    }

    /// Tells of nothing but the process itself.
    fn tell(&mut self) {
        let parcel =
            format!("{{\"Process\":{{\"last_statement\":0,\"pid\":{OLD_PID}}}}}").into_bytes();
        let len = parcel.len() as u32;
        let row = [&[0, 1], &len.to_be_bytes()[..], &parcel].concat();
        let told = [message(b'D', &row), message(b'Z', b"I")].concat();
        self.console.write_all(&told).expect("it reads");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.program.path("log")).unwrap_or_default()
    }

    fn main_pid(&self) -> String {
        let mut text = [0; 100];
        let len = self.systemd.recv(&mut text).expect("a notification");
        String::from_utf8_lossy(&text[..len]).into_owned()
    }

    #[track_caller]
    fn serves(&self) {
        eventually(SOON, || self.log(), |log| log.contains("process up"));
    }
}

/// Lets a console in. Whoever only looks whether somebody is there says nothing.
fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        let (mut console, _) = listener.accept().expect("a successor");
        let mut len = [0; 4];
        if console.read_exact(&mut len).is_ok() {
            let mut packet = vec![0; u32::from_be_bytes(len) as usize - 4];
            console.read_exact(&mut packet).expect("a whole packet");
            let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
            console.write_all(&welcome).expect("it reads");
            return console;
        }
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32 + 4;
    [&[tag], &len.to_be_bytes()[..], body].concat()
}

/// The tag and the body.
fn read_message(console: &mut UnixStream) -> Vec<u8> {
    let mut header = [0; 5];
    console.read_exact(&mut header).expect("a message");
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let mut body = vec![header[0]; len as usize - 3];
    console.read_exact(&mut body[1..]).expect("a whole message");
    body
}

#[test]
fn a_signal_that_ends_nobody_does_not_end_a_successor() {
    let mut scene = Scene::begin();
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        send_signal(&scene.successor.0.id().to_string(), signal);
    }
    scene.tell();
    assert!(read_message(&mut scene.console).starts_with(b"QSHUTDOWN"));
    scene
        .console
        .shutdown(std::net::Shutdown::Both)
        .expect("it is open");
    scene.serves();
    // They are obeyed afterwards.
    eventually(SOON, || scene.log(), |log| log.contains("got SIGHUP"));
}

#[test]
fn an_old_process_that_dies_when_it_has_told_all_has_ended() {
    let mut scene = Scene::begin();
    scene.tell();
    scene
        .console
        .shutdown(std::net::Shutdown::Both)
        .expect("it is open");
    scene.serves();
    assert!(scene.log().contains("old process killed, resuming work"));
}

#[test]
fn the_service_belongs_to_an_old_process_that_goes_on() {
    let mut scene = Scene::begin();
    scene.tell();
    let new = scene.successor.0.id();
    assert_eq!(scene.main_pid(), format!("MAINPID={new}"));
    assert!(read_message(&mut scene.console).starts_with(b"QSHUTDOWN"));
    let refusal = message(b'E', b"SERROR\0C08P01\0Mit goes on\0\0");
    scene.console.write_all(&refusal).expect("it reads");
    assert_eq!(scene.main_pid(), format!("MAINPID={OLD_PID}"));
    let status = scene.successor.0.wait().expect("a child of ours");
    assert_eq!(status.code(), Some(1));
    assert!(scene.log().contains("it goes on"), "{}", scene.log());
}
