//! The codes with which the control centre refuses a call: stable words for programs, each with
//! its page in `docs/errors`.

use core::fmt;

/// Writes the enum and all that is said of each code from one line, so that a new code cannot be
/// without any of it.
macro_rules! codes {
    ($(#[$of_all:meta])* pub enum $codes:ident {
        $(#[doc = $cause:literal] $code:ident: $word:literal, $status:literal, $remedy:literal;)*
    }) => {
        $(#[$of_all])*
        pub enum $codes {
            $(#[doc = $cause] $code,)*
        }

        impl $codes {
            /// Every code, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The code as it stands in an answer: `service-unknown`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $word,)* }
            }

            /// The status of the HTTP answer (RFC 9110, 15) that carries it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$code => $status,)* }
            }

            /// What it means, in a sentence.
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$code => $cause.trim_ascii(),)* }
            }

            /// What to do, where whoever refuses knows nothing better.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$code => $remedy,)* }
            }
        }
    };
}

codes! {
    /// Why a call is refused. What a code means never changes; new ones may come.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
    #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
    #[serde(rename_all = "kebab-case")]
    pub enum ProblemCode {
        /// There is no such path.
        PathUnknown: "path-unknown", 404, "`mainstay schema --api` prints every path with what it takes";
        /// The path does not take the method.
        MethodNotAllowed: "method-not-allowed", 405, "`mainstay schema --api` prints every path with what it takes";
        /// The name in the path cannot be a name.
        NameInvalid: "name-invalid", 400, "a name has 1 to 63 of a-z, 0-9 and `-`, and starts with a letter";
        /// The query is not what the path takes.
        QueryInvalid: "query-invalid", 400, "`mainstay schema --api` prints every path with what it takes";
        /// The body is not JSON.
        BodyNotJson: "body-not-json", 400, "correct it; `mainstay schema --api` prints what each path takes";
        /// A field of the body is wrong, or unknown.
        FieldInvalid: "field-invalid", 400, "correct it; `mainstay schema --api` prints what each path takes";
        /// The body is longer than it may be.
        BodyTooLarge: "body-too-large", 413, "declare fewer services at a time";
        /// The body did not come in time.
        BodyLate: "body-late", 408, "send the request again, whole";
        /// The body broke off.
        BodyBroken: "body-broken", 400, "send the request again, whole";
        /// The request does not say as whom it calls the control centre.
        HostMissing: "host-missing", 400, "send the header `Host: 127.0.0.1`";
        /// The request calls the control centre by a name that is not this machine's.
        HostRefused: "host-refused", 403, "call it as 127.0.0.1, localhost or [::1], with its own port";
        /// The request comes from a page of another site.
        OriginRefused: "origin-refused", 403, "call it from a page that the control centre itself serves";
        /// The request has no token.
        TokenMissing: "token-missing", 401, "send `Authorization: Bearer TOKEN` with the content of the file `token` in the state directory";
        /// The token is not the one of this control centre.
        TokenWrong: "token-wrong", 401, "send `Authorization: Bearer TOKEN` with the content of the file `token` in the state directory";
        /// The caller's account may not use the control centre.
        AccountRefused: "account-refused", 403, "run the command as the account that runs Mainstay, or as root";
        /// The path is answered on the unix socket alone.
        SocketOnly: "socket-only", 403, "call it on the unix socket `api.sock` in the state directory";
        /// As many watches are open as may be.
        TooManyWatches: "too-many-watches", 503, "close one of them";
        /// A consumer's name cannot be one.
        ConsumerNameInvalid: "consumer-name-invalid", 400, "use a short name without control characters";
        /// As many consumers follow the routes as can be waited for.
        TooManyConsumers: "too-many-consumers", 409, "let one of those that `mainstay status` names say farewell";
        /// There is no such node.
        NodeUnknown: "node-unknown", 404, "`mainstay status --json` names the nodes";
        /// There is no such service.
        ServiceUnknown: "service-unknown", 404, "`mainstay status` lists the services";
        /// There is no such instance, and nothing is remembered of it.
        InstanceUnknown: "instance-unknown", 404, "`mainstay ps` lists the instances";
        /// The instance takes no requests: its service has no route and no address, or it runs to its end.
        InstanceUnrouted: "instance-unrouted", 409, "stop its work by the program's own means, or scale the service";
        /// The instance is being stopped.
        InstanceLeaving: "instance-leaving", 409, "`mainstay why INSTANCE` tells why it leaves";
        /// No other instance of the service would get requests.
        InstanceLast: "instance-last", 409, "`mainstay scale` starts another one, `mainstay undrain` brings one back; or say --force";
        /// A name stands twice in one declaration.
        ServiceDeclaredTwice: "service-declared-twice", 422, "leave one of the two out";
        /// The service is being taken down.
        ServiceRemoving: "service-removing", 409, "declare it again with `mainstay up`";
        /// A specification cannot be carried out as it is.
        SpecInvalid: "spec-invalid", 422, "correct that field; a service file is checked for it with `mainstay validate`";
        /// More instances than one service may have.
        TooManyInstances: "too-many-instances", 422, "choose a smaller number";
        /// Another service has the address.
        AddressTaken: "address-taken", 422, "choose another address, or `auto`";
        /// Nobody serves the address.
        AddressOutside: "address-outside", 422, "choose one of 127.0.0.0/8, one in `range` of the node's `[forward]`, or `auto`";
        /// Another service has the same match.
        RouteTaken: "route-taken", 422, "take the other service down, or change it first and let its rollout finish";
        /// All addresses for `auto` are taken.
        NoAddressFree: "no-address-free", 409, "take a service with an address down, or fix an address";
        /// A specification addresses a service that does not exist.
        AddressedUnknown: "addressed-unknown", 422, "declare both in one file";
        /// A specification addresses a service without an address.
        AddressedWithoutAddress: "addressed-without-address", 422, "give it `address = \"auto\"`";
        /// A service needs one that does not exist.
        NeedsUnknown: "needs-unknown", 422, "declare both in one file";
        /// A service needs one that has a schedule, which is never ready.
        NeedsScheduled: "needs-scheduled", 422, "need a server, or run the program by `before`";
        /// A service needs itself, by way of its needs.
        NeedsItself: "needs-itself", 422, "take one of the needs on that way out";
        /// The node has not enough memory or processors.
        NoRoom: "no-room", 422, "lower `limits` or the number of instances";
        /// The service has a schedule, and no number of instances.
        ServiceScheduled: "service-scheduled", 409, "change its `schedule` in the file";
        /// No rollout is under way.
        NothingToPause: "nothing-to-pause", 409, "`mainstay status` shows what is going on";
        /// No rollout is paused or has failed.
        NothingToResume: "nothing-to-resume", 409, "`mainstay status` shows what is going on";
        /// No version waits to be promoted.
        NothingToPromote: "nothing-to-promote", 409, "`mainstay status` shows what is going on";
        /// Not all canaries are ready.
        CanariesNotReady: "canaries-not-ready", 409, "wait until they are, or go back with `mainstay rollback`";
        /// No version before the current one was ever wholly healthy.
        NoEarlierVersion: "no-earlier-version", 409, "name the version, as in `mainstay rollback SERVICE v2`";
        /// The version is unknown or no longer kept.
        VersionUnknown: "version-unknown", 404, "`mainstay status --json` lists the versions of each service";
        /// The version is the current one.
        VersionCurrent: "version-current", 409, "nothing is left to do; `mainstay status` shows it";
        /// There is no such secret.
        SecretUnknown: "secret-unknown", 404, "`mainstay secret ls` lists those that there are";
        /// A specification names a secret that does not exist.
        SecretMissing: "secret-missing", 422, "set it by `mainstay secret set NAME`, and declare it again; `mainstay dev` starts without a file, too";
        /// The value cannot be handed to a program.
        SecretInvalid: "secret-invalid", 400, "send a text of 1 byte to 32 KiB without NUL";
        /// Services name the secret.
        SecretInUse: "secret-in-use", 409, "declare these services without it first, or say --force";
        /// There are as many secrets as may be.
        TooManySecrets: "too-many-secrets", 409, "remove one that is not used any more";
        /// The secret cannot be opened: its key is missing, damaged or another one.
        SecretLocked: "secret-locked", 409, "put the right `secrets.key` back, or remove every secret and set it anew";
        /// Everything is being stopped.
        StoppingAll: "stopping-all", 409, "start Mainstay again first";
        /// The disk has no room for the state.
        StorageFull: "storage-full", 507, "make room on that disk; what runs goes on meanwhile";
        /// The disk takes no writes.
        StorageReadOnly: "storage-read-only", 507, "make that disk writable; what runs goes on meanwhile";
        /// The disk refuses the state for another reason.
        StorageFailed: "storage-failed", 507, "look after that disk; what runs goes on meanwhile";
        /// The disk does not answer in time.
        StorageSlow: "storage-slow", 507, "look at `mainstay status` when the disk answers again";
        /// The control centre is ending.
        CentreStopping: "centre-stopping", 503, "try again in a moment";
        /// Something that should not happen.
        InternalFault: "internal-fault", 500, "try again in a moment; then look at `logs/server.log`";
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
