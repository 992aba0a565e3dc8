use std::{collections::HashMap, net::SocketAddr, time::Duration};

use arbitrary::{Arbitrary, Unstructured};

use crate::{
    demultiplexer::{Demultiplexer, Route, SessionId},
    driver,
    ice::{
        Path,
        agent::{Agent, LocalAddresses},
        candidate::Candidate,
        token::SessionToken,
    },
    limits,
    stun::{self, AgentRole, Class, Message},
    ufrag::{Credentials, IceCredentials, IceString},
};

const OURS: &str = "ours0123456789abcdefghijklmnop";
const THEIRS: &str = "theirs0123456789abcdefghijklmn";

/// Messages as they arrive, and as they are made of any parts.
pub fn webrtc_stun(data: &[u8]) {
    if let Some(message) = Message::parse(data) {
        assert!(stun::is_stun(data) && data.len() <= stun::MAX_MESSAGE);
        assert!(message.has_integrity() || !message.is_from_holder_of(OURS));
    }
    let mut input = Unstructured::new(data);
    let Ok(made) = Made::arbitrary(&mut input) else { return };
    let username: String = made.username.chars().take(64).collect();
    let role =
        if made.controls { AgentRole::Controlling(made.number) } else { AgentRole::Controlled(made.number) };
    let check = stun::connectivity_check(made.id, &username, role, made.nominates, made.priority, OURS);
    let message = Message::parse(&check).expect("our own form is accepted");
    assert!(message.is_from_holder_of(OURS) && !message.is_from_holder_of(THEIRS));
    let parts = (message.class, message.transaction_id, message.username, message.use_candidate);
    assert_eq!(parts, (Class::Request, made.id, Some(username.as_str()), made.nominates));
    assert_eq!((message.role, message.priority), (Some(role), Some(made.priority)));
    // Whoever changes what the password protects is no holder of it.
    let mut changed = check.clone();
    let at = usize::from(made.at) % (check.len() - 32);
    changed[at] ^= made.difference;
    if made.difference != 0 {
        assert!(Message::parse(&changed).is_none_or(|message| !message.is_from_holder_of(OURS)), "byte {at}");
    }
    let answer = stun::binding_success(made.id, address(made.priority as u8), OURS);
    let message = Message::parse(&answer).expect("our own form is accepted");
    assert_eq!(message.mapped_address, Some(address(made.priority as u8)));
}

#[derive(Debug, Arbitrary)]
struct Made<'a> {
    id: [u8; 12],
    username: &'a str,
    controls: bool,
    number: u64,
    nominates: bool,
    priority: u32,
    at: u16,
    difference: u8,
}

fn address(number: u8) -> SocketAddr {
    match number % 16 {
        13 => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()], 4001)),
        14 => SocketAddr::from(([224, 0, 0, number], 4001)),
        15 => SocketAddr::from(([127, 0, 0, number], 4001)),
        _ => SocketAddr::from(([192, 0, 2, number], 4000 + u16::from(number))),
    }
}

#[derive(Debug, Arbitrary)]
enum Event<'a> {
    Describe {
        lite: bool,
    },
    Candidate {
        address: u8,
        priority: u32,
    },
    Text(&'a str),
    Servers(u8),
    /// A check by the remote.
    Check {
        from: u8,
        controls: bool,
        number: u64,
        nominates: bool,
        priority: u32,
    },
    /// An answer to a datagram that was sent, the last but so many.
    Success {
        to: u8,
        from: u8,
        mapped: u8,
        wrong_password: bool,
    },
    Conflict {
        to: u8,
    },
    /// That of a STUN server.
    Mapped {
        to: u8,
        mapped: u8,
    },
    Datagram {
        from: u8,
        bytes: &'a [u8],
    },
    /// Until the agent's next deadline.
    Next,
    Wait(u16),
}

/// An agent whose remote, with or without the password, sends anything at any time: what it sends in turn has its bounds,
/// and it never wants to be woken at once again and again.
pub fn webrtc_ice_agent(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut now = driver::now();
    let start = now;
    let (controlling, expects_servers) = input.arbitrary().unwrap_or_default();
    let addresses = LocalAddresses { host: vec![address(1), address(13)], expects_servers };
    let token = SessionToken::generate();
    let mut agent = Agent::new(credentials(OURS), token, &addresses, controlling, now);
    let mut sent: Vec<(Path, Vec<u8>)> = Vec::new();
    let mut checks: HashMap<SocketAddr, usize> = HashMap::new();
    let mut answers = 0;
    let mut heard = Vec::new();
    while !input.is_empty() {
        let Ok(event) = Event::arbitrary(&mut input) else { break };
        let mut arrived = None;
        match event {
            Event::Describe { lite } => agent.set_remote(now, credentials(THEIRS), lite),
            Event::Candidate { address: at, priority } => {
                let text = format!(
                    "candidate:1 1 udp {priority} {} {} typ host",
                    address(at).ip(),
                    address(at).port()
                );
                agent.add_remote_candidate(Candidate::parse(&text).ok().flatten().expect("a candidate"));
            }
            Event::Text(text) => {
                if let Ok(Some(candidate)) = Candidate::parse(&format!("candidate:1 1 udp 1 {text}")) {
                    agent.add_remote_candidate(candidate);
                }
            }
            Event::Servers(count) => {
                let servers: Vec<_> = (0..count % 8).map(|number| address(100 + number)).collect();
                agent.ask_servers(now, &servers);
            }
            Event::Check { from, controls, number, nominates, priority } => {
                let role =
                    if controls { AgentRole::Controlling(number) } else { AgentRole::Controlled(number) };
                let username = format!("{OURS}:{THEIRS}");
                let check = stun::connectivity_check([from; 12], &username, role, nominates, priority, OURS);
                arrived = Some((address(from), check));
            }
            Event::Success { to, from, mapped, wrong_password } => {
                if let Some((path, id)) = transaction(&sent, to) {
                    let from = if from == 0 { path.remote } else { address(from) };
                    let password = if wrong_password { OURS } else { THEIRS };
                    arrived = Some((from, stun::binding_success(id, address(mapped), password)));
                }
            }
            Event::Conflict { to } => {
                if let Some((path, id)) = transaction(&sent, to) {
                    arrived = Some((path.remote, stun::role_conflict(id, THEIRS)));
                }
            }
            Event::Mapped { to, mapped } => {
                if let Some((path, id)) = transaction(&sent, to) {
                    // As a server does: without a password.
                    let mut answer = stun::binding_success(id, address(mapped), "");
                    answer.truncate(answer.len() - 32);
                    let length = u16::try_from(answer.len() - 20).expect("a short message");
                    answer[2..4].copy_from_slice(&length.to_be_bytes());
                    arrived = Some((path.remote, answer));
                }
            }
            Event::Datagram { from, bytes } => arrived = Some((address(from), bytes.to_vec())),
            Event::Next => now = agent.poll_timeout().unwrap_or(now).max(now),
            Event::Wait(millis) => now += Duration::from_millis(millis.into()),
        }
        if let Some((from, bytes)) = arrived
            && let Some(message) = Message::parse(&bytes)
            && agent.handle_message(now, Path { local: None, remote: from }, &message)
        {
            heard.push(from);
            answers += 1;
        }
        settle(&mut agent, &mut now);
        while let Some((path, bytes)) = agent.poll_transmit() {
            let message = Message::parse(&bytes).expect("we read our own messages");
            // Until an address has been heard, no more goes there than its bound.
            if message.class == Class::Request && message.has_integrity() && !heard.contains(&path.remote) {
                let count = checks.entry(path.remote).or_default();
                *count += 1;
                assert!(
                    *count <= usize::from(limits::MAX_CHECKS_PER_PAIR),
                    "{count} checks to {}",
                    path.remote
                );
            } else if message.class != Class::Request {
                assert!(answers > 0, "an answer without a question");
                answers -= 1;
            }
            sent.push((path, bytes));
        }
        assert!(checks.len() <= limits::MAX_PAIRS);
        let gathered = std::iter::from_fn(|| agent.poll_gathered()).take(64).count();
        assert!(gathered < 64);
        let _ = (agent.selected(), agent.has_lost_consent(), agent.knows(address(2)));
        assert!(
            agent.selected().is_none_or(|path| heard.contains(&path.remote)),
            "a path that nobody has used"
        );
    }
    // Left alone, it comes to rest or loses its patience.
    for _ in 0..5_000 {
        let Some(next) = agent.poll_timeout() else { break };
        now = now.max(next);
        settle(&mut agent, &mut now);
        while agent.poll_transmit().is_some() {}
    }
    assert!(agent.poll_timeout().is_none_or(|next| next > start), "an agent that nobody answers rests");
}

/// Everything that is due.
fn settle(agent: &mut Agent, now: &mut std::time::Instant) {
    for _ in 0..64 {
        if agent.poll_timeout().is_none_or(|due| due > *now) {
            return;
        }
        agent.handle_timeout(*now);
    }
    panic!("an agent wants to be woken again and again");
}

fn transaction(sent: &[(Path, Vec<u8>)], last_but: u8) -> Option<(Path, stun::TransactionId)> {
    let requests = sent.iter().rev().filter_map(|(path, bytes)| {
        let message = Message::parse(bytes).filter(|message| message.class == Class::Request)?;
        Some((*path, message.transaction_id))
    });
    requests.take(64).nth(usize::from(last_but % 64))
}

fn credentials(of: &str) -> IceCredentials {
    let ufrag = IceString::ufrag(of).expect("a user name fragment");
    let password = IceString::password(of).expect("a password");
    IceCredentials { ufrag, password }
}

#[derive(Debug, Arbitrary)]
enum Traffic<'a> {
    /// A check with one of a few user names, by who has the password or not.
    Check {
        from: u8,
        session: u8,
        authentic: bool,
        negotiated: bool,
    },
    Datagram {
        from: u8,
        bytes: &'a [u8],
    },
    /// What a dialer sends once its check was answered.
    Handshake {
        from: u8,
    },
    Negotiated,
    Established(u8),
    Remove(u8),
    Wait(u16),
    Close,
}

/// A socket's sessions: whatever arrives goes to one that there is, and the number of those that strangers begin has its
/// bounds.
pub fn webrtc_demultiplexer(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut now = driver::now();
    let mut demultiplexer = Demultiplexer::new(now);
    let mut sessions: Vec<(SessionId, bool)> = Vec::new();
    let mut negotiated = 0;
    let mut closed = false;
    while !input.is_empty() {
        let Ok(traffic) = Traffic::arbitrary(&mut input) else { break };
        let arrived = match traffic {
            Traffic::Check { from, session, authentic, negotiated } => {
                let server = match negotiated {
                    true => format!("{OURS}{session}"),
                    false => format!("libp2p+webrtc+v1/{session:022}"),
                };
                let client = if negotiated { THEIRS.to_owned() } else { server.clone() };
                let username = format!("{server}:{client}");
                let password = if authentic { server.as_str() } else { "another password than that" };
                Some((from, stun::binding_request([session; 12], &username, 1, password)))
            }
            Traffic::Handshake { from } => Some((from, vec![22, 254, 253])),
            Traffic::Datagram { from, bytes } => Some((from, bytes.to_vec())),
            Traffic::Negotiated if negotiated < 32 => {
                let local = credentials(&format!("{OURS}{negotiated}"));
                sessions.push((demultiplexer.insert_negotiated(&local, SessionToken::generate(), ()), true));
                negotiated += 1;
                None
            }
            Traffic::Established(index) => {
                if let Some(count) = usize::from(index).checked_rem(sessions.len()) {
                    demultiplexer.established(sessions[count].0);
                    sessions[count].1 = true;
                }
                None
            }
            Traffic::Remove(index) => {
                if let Some(count) = usize::from(index).checked_rem(sessions.len()) {
                    demultiplexer.remove(sessions.remove(count).0);
                }
                None
            }
            Traffic::Wait(millis) => {
                now += Duration::from_millis(millis.into());
                None
            }
            Traffic::Close => {
                demultiplexer.close();
                closed = true;
                sessions.retain(|(_, established)| *established);
                None
            }
            Traffic::Negotiated => None,
        };
        let Some((from, datagram)) = arrived else { continue };
        match demultiplexer.route(now, address(from), &datagram) {
            Route::Sessions(ids) => {
                assert!(!ids.is_empty() && ids.len() <= limits::MAX_SESSIONS_PER_ADDRESS);
                assert!(
                    ids.iter().all(|id| sessions.iter().any(|(known, _)| known == id)),
                    "a session that is over"
                );
                assert!(ids.iter().all(|id| demultiplexer.sink(*id).is_some()));
            }
            Route::New(new, ..) => {
                assert!(!closed, "a socket that is closed begins no session");
                assert_eq!(
                    Credentials::parse(&format!("{}:{}", new.server.as_str(), new.client_ufrag.as_str())),
                    Some(new.clone())
                );
                sessions.push((demultiplexer.insert(&new, address(from), ()), false));
            }
            _ => {}
        }
        let pending = sessions.iter().filter(|(_, established)| !established).count();
        assert!(pending <= limits::MAX_PENDING_HANDSHAKES);
    }
}
