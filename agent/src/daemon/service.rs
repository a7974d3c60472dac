//! What a service manager is told: that the agent is ready, that it lives, that it is leaving
//! (sd_notify(3): a datagram to the socket that `$NOTIFY_SOCKET` names).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Without a watchdog the beat does nothing; it need not be fast.
const IDLE_BEAT: Duration = Duration::from_secs(60);

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Service {
    to: Option<(UnixDatagram, SocketAddr)>,
    beat: Duration,
}

impl Service {
    /// The one that the environment names.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let beat = beat(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        Self {
            to: variable("NOTIFY_SOCKET").and_then(|name| connect(&name)),
            beat: beat.unwrap_or(IDLE_BEAT),
        }
    }

    /// How often it wants to hear that the agent lives.
    pub fn beat(&self) -> Duration {
        self.beat
    }

    /// Tells it. Whether it listens is its own affair.
    pub fn say(&self, state: &str) {
        if let Some((socket, address)) = &self.to {
            let _unheard = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

fn connect(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name.as_bytes()).ok()?,
        None => SocketAddr::from_pathname(name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}

/// Half of the time after which it takes the agent for dead, when it is this process that is watched.
fn beat(micros: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let micros: u64 = micros?.parse().ok()?;
    (is_ours && micros > 1).then(|| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_what_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let service = Service { to: connect(path.to_str().unwrap()), beat: IDLE_BEAT };
        service.say("READY=1");
        let mut heard = [0; 32];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
        drop(manager);
        service.say("STOPPING=1");
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_by_the_process_it_watches() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(beat(text("30000000"), None, 7), Some(Duration::from_secs(15)));
        assert_eq!(beat(text("30000000"), text("7"), 7), Some(Duration::from_secs(15)));
        for (micros, pid) in
            [(None, None), (text("30000000"), text("8")), (text("x"), None), (text("0"), None)]
        {
            assert_eq!(beat(micros, pid, 7), None);
        }
    }
}
