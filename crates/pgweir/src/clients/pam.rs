//! Asks PAM whether a password is right, on a thread that does nothing else: modules may block for
//! as long as they like, and many are not made for threads.

use std::sync::OnceLock;
use std::thread;

use pgweir_auth::Password;
use tokio::sync::{mpsc, oneshot};

#[cfg(not(target_os = "linux"))]
compile_error!("the feature `pam` is for Linux, whose PAM differs from that of other systems");

/// Why this build cannot do it.
pub(crate) const NOT_BUILT: Option<&str> = None;

/// PgBouncer's name for itself towards PAM: it is the name of the file in `/etc/pam.d`.
const SERVICE: &str = "pgbouncer";

/// Logins that may wait for the thread before others wait for room.
const QUEUE_MAX: usize = 20;

/// The way to the thread, which is started by the first who needs it.
#[derive(Debug, Default)]
pub(crate) struct Pam {
    queue: OnceLock<mpsc::Sender<Question>>,
}

#[derive(Debug)]
struct Question {
    user: String,
    password: Password,
    address: String,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Pam {
    /// Whether this is the user's password. A login that gives up waiting is passed over.
    ///
    /// # Errors
    /// It is not, or that could not be found out; the text is for the log.
    pub(crate) async fn check(
        &self,
        user: &str,
        password: &Password,
        address: &str,
    ) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            user: user.to_owned(),
            password: password.clone(),
            address: address.to_owned(),
            answer,
        };
        let gone = "the thread for PAM has ended".to_owned();
        match self.queue.get_or_init(start).send(question).await {
            Ok(()) => answered.await.unwrap_or(Err(gone)),
            Err(_) => Err(gone),
        }
    }
}

fn start() -> mpsc::Sender<Question> {
    let (sender, mut questions) = mpsc::channel(QUEUE_MAX);
    let thread = thread::Builder::new().name("pam".to_owned());
    let started = thread.spawn(move || {
        while let Some(question) = questions.blocking_recv() {
            decide(question);
        }
    });
    if let Err(error) = started {
        tracing::error!("cannot start a thread for PAM: {error}");
    }
    sender
}

fn decide(question: Question) {
    let Question {
        user,
        password,
        address,
        answer,
    } = question;
    if answer.is_closed() {
        return;
    }
    let result = pgweir_pam::check(SERVICE, &user, password.expose(), &address);
    // The login may have run out of time meanwhile.
    let _ = answer.send(result.map_err(|error| error.to_string()));
}
