//! What can befall a request on its way to the store and back.

use std::fmt;

use walpoint_tests::proxy::Fault;

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFault {
    InternalError,
    SlowDown,
    AccessDenied,
    /// Accepted and never answered.
    NoAnswer,
    /// The reply comes in pieces, slowly.
    Trickle,
    /// Half of the reply comes, and nothing more.
    Stall,
    /// Half of what is uploaded reaches the store, and nothing more.
    HalfOfRequest,
    /// The connection breaks before the store has seen the request.
    ResetBefore,
    /// The store does it, and the connection breaks before the reply.
    ResetAfter,
    /// The connection breaks in the middle of the reply.
    Half,
    /// 200, and an error in the body.
    ErrorIn200,
    /// 404, and not for the object.
    NoBucket,
    /// 404 from somebody who is no store.
    NotFoundPage,
    Redirect,
    /// 200 from somebody who is no store.
    CaptivePortal,
}

pub const KINDS: [RequestFault; 15] = [
    RequestFault::InternalError,
    RequestFault::SlowDown,
    RequestFault::AccessDenied,
    RequestFault::NoAnswer,
    RequestFault::Trickle,
    RequestFault::Stall,
    RequestFault::HalfOfRequest,
    RequestFault::ResetBefore,
    RequestFault::ResetAfter,
    RequestFault::Half,
    RequestFault::ErrorIn200,
    RequestFault::NoBucket,
    RequestFault::NotFoundPage,
    RequestFault::Redirect,
    RequestFault::CaptivePortal,
];

/// One of each sort, for a store that has gone and every request that it would take to notice.
pub const KINDS_OF_OUTAGE: [RequestFault; 4] =
    [RequestFault::SlowDown, RequestFault::NoAnswer, RequestFault::ResetAfter, RequestFault::CaptivePortal];

impl RequestFault {
    pub fn fault(self) -> Fault {
        match self {
            RequestFault::InternalError => Fault::status(500, "InternalError"),
            RequestFault::SlowDown => Fault::status(503, "SlowDown"),
            RequestFault::AccessDenied => Fault::status(403, "AccessDenied"),
            RequestFault::NoAnswer => Fault::Blackhole,
            RequestFault::Trickle => Fault::Pieces(4),
            RequestFault::Stall => Fault::Stall,
            RequestFault::HalfOfRequest => Fault::HalfOfRequest,
            RequestFault::ResetBefore => Fault::DropBefore,
            RequestFault::ResetAfter => Fault::DropAfter,
            RequestFault::Half => Fault::Half,
            RequestFault::ErrorIn200 => Fault::status(200, "InternalError"),
            RequestFault::NoBucket => Fault::status(404, "NoSuchBucket"),
            RequestFault::NotFoundPage => Fault::NotFoundPage,
            // Nobody listens there, and nobody is to be told what was asked.
            RequestFault::Redirect => Fault::Redirect("http://127.0.0.1:9/elsewhere".to_owned()),
            RequestFault::CaptivePortal => Fault::Html,
        }
    }
}

impl fmt::Display for RequestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestFault::InternalError => "500",
            RequestFault::SlowDown => "503",
            RequestFault::AccessDenied => "403",
            RequestFault::NoAnswer => "no-answer",
            RequestFault::Trickle => "trickle",
            RequestFault::Stall => "stall",
            RequestFault::HalfOfRequest => "half-of-request",
            RequestFault::ResetBefore => "reset-before",
            RequestFault::ResetAfter => "reset-after",
            RequestFault::Half => "half",
            RequestFault::ErrorIn200 => "error-in-200",
            RequestFault::NoBucket => "404-no-bucket",
            RequestFault::NotFoundPage => "404-page",
            RequestFault::Redirect => "redirect",
            RequestFault::CaptivePortal => "captive-portal",
        })
    }
}
