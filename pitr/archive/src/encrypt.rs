//! age (age-encryption.org/v1) to X25519 recipients. The host that archives
//! needs public keys only.

use std::fmt;
use std::io::{self, BufRead, Cursor, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, Encryptor, x25519};

use crate::config::EncryptionConfig;

/// Most recipients of one archive. Each takes some 100 bytes of every object.
pub const MAX_RECIPIENTS: usize = 100;

/// Longest age header that is read: room for [`MAX_RECIPIENTS`]. The parser
/// begins anew at every line, so a long hostile header would cost its square.
pub(crate) const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The keys of an archive: public ones to seal with, secret ones to open with.
#[derive(Clone, Default)]
pub struct KeyRing {
    recipients: Vec<x25519::Recipient>,
    identities: Vec<x25519::Identity>,
}

/// Keys that cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A recipient that is no public key.
    #[error("encryption recipient {number} is not an age public key: {reason}")]
    Recipient {
        /// Which one, from 1. Its text stays out: it may be a secret key by mistake.
        number: usize,
        /// What age says of it.
        reason: &'static str,
    },
    /// More recipients than [`MAX_RECIPIENTS`].
    #[error("{0} encryption recipients are too many: at most {MAX_RECIPIENTS} can be used")]
    TooMany(usize),
    /// An identity file that cannot be read as one.
    #[error("could not read the identity file \"{}\": {reason}", path.display())]
    IdentityFile {
        /// The file.
        path: PathBuf,
        /// Why, without its content.
        reason: String,
    },
}

impl KeyError {
    /// The next step for the operator.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Recipient { .. } => {
                "a recipient begins with age1 and is printed by: age-keygen -y IDENTITY_FILE"
            }
            Self::TooMany(_) => "share one key among those who may restore",
            Self::IdentityFile { .. } => {
                "an identity file holds lines AGE-SECRET-KEY-1…, as age-keygen writes it, \
                 readable by the user that runs this command"
            }
        }
    }
}

impl KeyRing {
    /// The keys named in the configuration. Reads the identity file; warns when
    /// others can read it too.
    pub fn from_config(config: &EncryptionConfig) -> Result<Self, KeyError> {
        if config.recipients.len() > MAX_RECIPIENTS {
            return Err(KeyError::TooMany(config.recipients.len()));
        }
        let recipients = config.recipients.iter().enumerate().map(|(index, text)| {
            text.trim().parse().map_err(|reason| KeyError::Recipient { number: index + 1, reason })
        });
        let identities = match &config.identity_file {
            Some(path) => read_identities(path)?,
            None => Vec::new(),
        };
        Ok(Self { recipients: recipients.collect::<Result<_, _>>()?, identities })
    }

    /// The identities of an identity file's text, and their public keys.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_identities(text: &str) -> Result<Self, String> {
        let identities = parse_identities(text)?;
        Ok(Self { recipients: identities.iter().map(x25519::Identity::to_public).collect(), identities })
    }

    /// True when what is sealed with this ring is encrypted.
    pub fn encrypts(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// True when there is a key to try on encrypted objects.
    pub fn can_open(&self) -> bool {
        !self.identities.is_empty()
    }

    /// A writer whose input is encrypted into `out`. Its `finish` must be called.
    pub(crate) fn encryptor<W: Write>(&self, out: W) -> io::Result<StreamWriter<W>> {
        let recipients = self.recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        Encryptor::with_recipients(recipients).map_err(io::Error::other)?.wrap_output(out)
    }

    /// A reader of what an age file holds. Reading it to its end proves that
    /// the file is whole.
    pub(crate) fn decryptor<R: BufRead>(&self, stored: R) -> Result<Decrypted<R>, DecryptFailure> {
        if !self.can_open() {
            return Err(DecryptFailure::NoKey);
        }
        let (header, rest) = split_header(stored)?;
        self.decrypt(Decryptor::new_buffered(Cursor::new(header).chain(rest)))
    }

    /// The same where single parts are read; its header is one that [`split_header`] took. It proves no more than what
    /// is read.
    pub(crate) fn seekable_decryptor<R: Read + Seek>(
        &self,
        stored: R,
    ) -> Result<StreamReader<R>, DecryptFailure> {
        if !self.can_open() {
            return Err(DecryptFailure::NoKey);
        }
        self.decrypt(Decryptor::new(stored))
    }

    fn decrypt<R: Read>(
        &self,
        decryptor: Result<Decryptor<R>, DecryptError>,
    ) -> Result<StreamReader<R>, DecryptFailure> {
        let identities = self.identities.iter().map(|identity| identity as &dyn age::Identity);
        decryptor.and_then(|decryptor| decryptor.decrypt(identities)).map_err(refused)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("recipients", &self.recipients.len())
            .field("identities", &self.identities.len())
            .finish()
    }
}

/// The plain side of an age file.
pub(crate) type Decrypted<R> = StreamReader<io::Chain<Cursor<Vec<u8>>, R>>;

/// Why an age file could not be opened.
#[derive(Debug)]
pub(crate) enum DecryptFailure {
    NoKey,
    WrongKey,
    Damaged(String),
    Io(io::Error),
}

fn refused(error: DecryptError) -> DecryptFailure {
    match error {
        DecryptError::NoMatchingKeys => DecryptFailure::WrongKey,
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => DecryptFailure::Io(error),
        other => DecryptFailure::Damaged(other.to_string()),
    }
}

/// Takes the header (up to the line that begins with `---`, its last) off the
/// file. The nonce and the encrypted chunks remain.
pub(crate) fn split_header<R: BufRead>(mut stored: R) -> Result<(Vec<u8>, R), DecryptFailure> {
    let mut header = Vec::new();
    loop {
        let line = header.len();
        let room = MAX_HEADER_BYTES.saturating_sub(line) as u64;
        let read = stored.by_ref().take(room).read_until(b'\n', &mut header).map_err(DecryptFailure::Io)?;
        let complete = header.ends_with(b"\n");
        if read == 0 || !complete {
            return Err(DecryptFailure::Damaged("the age header has no end".to_owned()));
        }
        if header.get(line..).is_some_and(|line| line.starts_with(b"---")) {
            return Ok((header, stored));
        }
    }
}

fn read_identities(path: &Path) -> Result<Vec<x25519::Identity>, KeyError> {
    let failed = |reason: String| KeyError::IdentityFile { path: path.to_owned(), reason };
    let mode = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:04o}", mode & 0o7777);
        tracing::warn!(path = %path.display(), mode, "the identity file can be read by others; chmod 600 it");
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let identities = parse_identities(&text).map_err(failed)?;
    if identities.is_empty() {
        return Err(failed("it holds no identity".to_owned()));
    }
    Ok(identities)
}

/// age's identity file: one identity a line; empty lines and comments are skipped.
fn parse_identities(text: &str) -> Result<Vec<x25519::Identity>, String> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            line.parse().map_err(|reason| format!("line {number} is not an X25519 identity: {reason}"))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    /// A new key pair: one ring that seals, one that opens.
    pub(crate) fn key_pair() -> (KeyRing, KeyRing) {
        let identity = x25519::Identity::generate();
        let seals = KeyRing { recipients: vec![identity.to_public()], identities: Vec::new() };
        let opens = KeyRing { recipients: Vec::new(), identities: vec![identity] };
        (seals, opens)
    }

    fn config(recipients: &[&str], identity_file: Option<PathBuf>) -> EncryptionConfig {
        EncryptionConfig { recipients: recipients.iter().map(ToString::to_string).collect(), identity_file }
    }

    fn secret(identity: &x25519::Identity) -> String {
        identity.to_string().expose_secret().to_owned()
    }

    #[test]
    fn an_identity_file_is_read_with_its_comments_and_several_keys() {
        let (one, two) = (x25519::Identity::generate(), x25519::Identity::generate());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let text = format!("# created: now\n# public key: x\n{}\n\n  {}\r\n", secret(&one), secret(&two));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let public = one.to_public().to_string();
        let ring = KeyRing::from_config(&config(&[&public], Some(path))).unwrap();
        assert_eq!(ring.identities.len(), 2);
        assert!(ring.encrypts() && ring.can_open());
    }

    #[test]
    fn no_text_of_a_key_appears_in_an_error_or_in_debug() {
        let secret_key = secret(&x25519::Identity::generate());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, format!("{secret_key}x\n")).unwrap();
        let by_file = KeyRing::from_config(&config(&[], Some(path.clone()))).unwrap_err();
        let by_list = KeyRing::from_config(&config(&[&secret_key], None)).unwrap_err();
        std::fs::write(&path, &secret_key).unwrap();
        let ring = KeyRing::from_config(&config(&[], Some(path))).unwrap();
        let middle = secret_key.get(20..40).unwrap();
        for text in [format!("{by_file} {by_file:?}"), format!("{by_list} {by_list:?}"), format!("{ring:?}")]
        {
            assert!(!text.contains(middle), "{text}");
        }
    }

    #[test]
    fn keys_that_cannot_be_used_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "# nothing\n").unwrap();
        assert!(KeyRing::from_config(&config(&["age1nonsense"], None)).is_err());
        assert!(KeyRing::from_config(&config(&["ssh-ed25519 AAAA"], None)).is_err());
        assert!(KeyRing::from_config(&config(&[], Some(empty))).is_err());
        assert!(KeyRing::from_config(&config(&[], Some(dir.path().join("absent")))).is_err());
        let public = x25519::Identity::generate().to_public().to_string();
        let many = vec![public.as_str(); MAX_RECIPIENTS + 1];
        assert!(matches!(KeyRing::from_config(&config(&many, None)), Err(KeyError::TooMany(_))));
    }

    #[test]
    fn the_header_for_all_recipients_allowed_can_be_read_back() {
        let identity = x25519::Identity::generate();
        let public = identity.to_public();
        let ring = KeyRing { recipients: vec![public; MAX_RECIPIENTS], identities: vec![identity] };
        let mut writer = ring.encryptor(Vec::new()).unwrap();
        writer.write_all(b"content").unwrap();
        let stored = writer.finish().unwrap();
        let mut plain = Vec::new();
        ring.decryptor(stored.as_slice()).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, b"content");
    }

    #[test]
    fn a_header_without_end_is_refused_soon() {
        let (_, opens) = key_pair();
        let endless = [b"age-encryption.org/v1\n".to_vec(), b"-> x\n\n".repeat(1 << 20)].concat();
        let started = std::time::Instant::now();
        assert!(matches!(opens.decryptor(endless.as_slice()), Err(DecryptFailure::Damaged(_))));
        assert!(started.elapsed().as_secs() < 5);
    }
}
