//! Every method of AMQP 0-9-1 and of RabbitMQ's extensions, in both directions.

#![expect(
    missing_docs,
    reason = "names and order of the fields are those of the specification"
)]

use bytes::Bytes;

use crate::field::Table;
use crate::text::ShortString;
use crate::wire::{Malformed, Reader, Reserved, Wire as _, Writer};

/// Class and number of a method, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct MethodId {
    /// The class.
    pub class: u16,
    /// The method within it.
    pub method: u16,
}

impl MethodId {
    /// What a close has that no method caused.
    pub const NONE: Self = Self {
        class: 0,
        method: 0,
    };
}

/// Why a payload is no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such method.
    #[error("the method {} of class {} is unknown", .0.method, .0.class)]
    Unknown(MethodId),
    /// Its fields cannot be read.
    #[error("{1} cannot be read: {2}")]
    Malformed(MethodId, &'static str, #[source] Malformed),
    /// It is too short to say which one it is.
    #[error("a method has four bytes at least")]
    Short,
}

macro_rules! methods {
    ($($class:literal $id:literal $name:ident $text:literal { $($field:ident : $type:ty),* $(,)? })*) => {
        $(
            #[doc = concat!("`", $text, "`")]
            #[derive(Debug, Clone, Default, PartialEq)]
            pub struct $name {
                $(pub $field: $type,)*
            }

            impl From<$name> for Method {
                fn from(method: $name) -> Self {
                    Self::$name(method)
                }
            }

            impl $name {
                /// Class and number.
                pub const ID: MethodId = MethodId { class: $class, method: $id };
            }
        )*

        /// A method with its fields.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Method {
            $($name($name),)*
        }

        impl Method {
            /// Class and number.
            pub const fn id(&self) -> MethodId {
                match self {
                    $(Self::$name(_) => $name::ID,)*
                }
            }

            /// Its name, such as `basic.publish`.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $text,)*
                }
            }

            fn read_fields(id: MethodId, reader: &mut Reader<'_>) -> Result<Self, Refused> {
                match (id.class, id.method) {
                    $(($class, $id) => {
                        let wrong = |malformed| Refused::Malformed(id, $text, malformed);
                        let method = $name {
                            $($field: <$type>::read(reader).map_err(wrong)?,)*
                        };
                        reader.end().map_err(wrong)?;
                        Ok(Self::$name(method))
                    })*
                    _ => Err(Refused::Unknown(id)),
                }
            }

            /// Writes class, number and fields.
            #[allow(unused_variables, reason = "methods without fields have nothing to write")]
            pub(crate) fn write(&self, writer: &mut Writer<'_>) {
                let id = self.id();
                id.class.write(writer);
                id.method.write(writer);
                match self {
                    $(Self::$name(method) => { $(method.$field.write(writer);)* })*
                }
            }
        }
    };
}

impl Method {
    /// Reads the payload of a method frame, all of it.
    pub fn read(payload: &Bytes) -> Result<Self, Refused> {
        let mut reader = Reader::new(payload);
        let (Ok(class), Ok(method)) = (reader.short(), reader.short()) else {
            return Err(Refused::Short);
        };
        Self::read_fields(MethodId { class, method }, &mut reader)
    }

    /// Whether a header and a body follow it.
    pub const fn has_content(&self) -> bool {
        matches!(
            self,
            Self::BasicPublish(_)
                | Self::BasicReturn(_)
                | Self::BasicDeliver(_)
                | Self::BasicGetOk(_)
        )
    }
}

methods! {
    10 10 ConnectionStart "connection.start" {
        version_major: u8, version_minor: u8, server_properties: Table, mechanisms: Bytes, locales: Bytes,
    }
    10 11 ConnectionStartOk "connection.start_ok" {
        client_properties: Table, mechanism: ShortString, response: Bytes, locale: ShortString,
    }
    10 20 ConnectionSecure "connection.secure" { challenge: Bytes }
    10 21 ConnectionSecureOk "connection.secure_ok" { response: Bytes }
    10 30 ConnectionTune "connection.tune" { channel_max: u16, frame_max: u32, heartbeat: u16 }
    10 31 ConnectionTuneOk "connection.tune_ok" { channel_max: u16, frame_max: u32, heartbeat: u16 }
    10 40 ConnectionOpen "connection.open" {
        virtual_host: ShortString, capabilities: Reserved<ShortString>, insist: Reserved<bool>,
    }
    10 41 ConnectionOpenOk "connection.open_ok" { known_hosts: Reserved<ShortString> }
    10 50 ConnectionClose "connection.close" { reply_code: u16, reply_text: ShortString, class: u16, method: u16 }
    10 51 ConnectionCloseOk "connection.close_ok" {}
    10 60 ConnectionBlocked "connection.blocked" { reason: ShortString }
    10 61 ConnectionUnblocked "connection.unblocked" {}
    10 70 ConnectionUpdateSecret "connection.update_secret" { new_secret: Bytes, reason: ShortString }
    10 71 ConnectionUpdateSecretOk "connection.update_secret_ok" {}

    20 10 ChannelOpen "channel.open" { out_of_band: Reserved<ShortString> }
    20 11 ChannelOpenOk "channel.open_ok" { channel_id: Reserved<Bytes> }
    20 20 ChannelFlow "channel.flow" { active: bool }
    20 21 ChannelFlowOk "channel.flow_ok" { active: bool }
    20 40 ChannelClose "channel.close" { reply_code: u16, reply_text: ShortString, class: u16, method: u16 }
    20 41 ChannelCloseOk "channel.close_ok" {}

    30 10 AccessRequest "access.request" {
        realm: ShortString, exclusive: bool, passive: bool, active: bool, write: bool, read: bool,
    }
    30 11 AccessRequestOk "access.request_ok" { ticket: u16 }

    40 10 ExchangeDeclare "exchange.declare" {
        ticket: Reserved<u16>, exchange: ShortString, kind: ShortString, passive: bool, durable: bool,
        auto_delete: bool, internal: bool, nowait: bool, arguments: Table,
    }
    40 11 ExchangeDeclareOk "exchange.declare_ok" {}
    40 20 ExchangeDelete "exchange.delete" {
        ticket: Reserved<u16>, exchange: ShortString, if_unused: bool, nowait: bool,
    }
    40 21 ExchangeDeleteOk "exchange.delete_ok" {}
    40 30 ExchangeBind "exchange.bind" {
        ticket: Reserved<u16>, destination: ShortString, source: ShortString, routing_key: ShortString,
        nowait: bool, arguments: Table,
    }
    40 31 ExchangeBindOk "exchange.bind_ok" {}
    40 40 ExchangeUnbind "exchange.unbind" {
        ticket: Reserved<u16>, destination: ShortString, source: ShortString, routing_key: ShortString,
        nowait: bool, arguments: Table,
    }
    40 51 ExchangeUnbindOk "exchange.unbind_ok" {}

    50 10 QueueDeclare "queue.declare" {
        ticket: Reserved<u16>, queue: ShortString, passive: bool, durable: bool, exclusive: bool,
        auto_delete: bool, nowait: bool, arguments: Table,
    }
    50 11 QueueDeclareOk "queue.declare_ok" { queue: ShortString, message_count: u32, consumer_count: u32 }
    50 20 QueueBind "queue.bind" {
        ticket: Reserved<u16>, queue: ShortString, exchange: ShortString, routing_key: ShortString, nowait: bool,
        arguments: Table,
    }
    50 21 QueueBindOk "queue.bind_ok" {}
    50 30 QueuePurge "queue.purge" { ticket: Reserved<u16>, queue: ShortString, nowait: bool }
    50 31 QueuePurgeOk "queue.purge_ok" { message_count: u32 }
    50 40 QueueDelete "queue.delete" {
        ticket: Reserved<u16>, queue: ShortString, if_unused: bool, if_empty: bool, nowait: bool,
    }
    50 41 QueueDeleteOk "queue.delete_ok" { message_count: u32 }
    50 50 QueueUnbind "queue.unbind" {
        ticket: Reserved<u16>, queue: ShortString, exchange: ShortString, routing_key: ShortString,
        arguments: Table,
    }
    50 51 QueueUnbindOk "queue.unbind_ok" {}

    60 10 BasicQos "basic.qos" { prefetch_size: u32, prefetch_count: u16, global: bool }
    60 11 BasicQosOk "basic.qos_ok" {}
    60 20 BasicConsume "basic.consume" {
        ticket: Reserved<u16>, queue: ShortString, consumer_tag: ShortString, no_local: bool, no_ack: bool,
        exclusive: bool, nowait: bool, arguments: Table,
    }
    60 21 BasicConsumeOk "basic.consume_ok" { consumer_tag: ShortString }
    60 30 BasicCancel "basic.cancel" { consumer_tag: ShortString, nowait: bool }
    60 31 BasicCancelOk "basic.cancel_ok" { consumer_tag: ShortString }
    60 40 BasicPublish "basic.publish" {
        ticket: Reserved<u16>, exchange: ShortString, routing_key: ShortString, mandatory: bool, immediate: bool,
    }
    60 50 BasicReturn "basic.return" {
        reply_code: u16, reply_text: ShortString, exchange: ShortString, routing_key: ShortString,
    }
    60 60 BasicDeliver "basic.deliver" {
        consumer_tag: ShortString, delivery_tag: u64, redelivered: bool, exchange: ShortString,
        routing_key: ShortString,
    }
    60 70 BasicGet "basic.get" { ticket: Reserved<u16>, queue: ShortString, no_ack: bool }
    60 71 BasicGetOk "basic.get_ok" {
        delivery_tag: u64, redelivered: bool, exchange: ShortString, routing_key: ShortString, message_count: u32,
    }
    60 72 BasicGetEmpty "basic.get_empty" { cluster_id: Reserved<ShortString> }
    60 80 BasicAck "basic.ack" { delivery_tag: u64, multiple: bool }
    60 90 BasicReject "basic.reject" { delivery_tag: u64, requeue: bool }
    60 100 BasicRecoverAsync "basic.recover_async" { requeue: bool }
    60 110 BasicRecover "basic.recover" { requeue: bool }
    60 111 BasicRecoverOk "basic.recover_ok" {}
    60 120 BasicNack "basic.nack" { delivery_tag: u64, multiple: bool, requeue: bool }

    85 10 ConfirmSelect "confirm.select" { nowait: bool }
    85 11 ConfirmSelectOk "confirm.select_ok" {}

    90 10 TxSelect "tx.select" {}
    90 11 TxSelectOk "tx.select_ok" {}
    90 20 TxCommit "tx.commit" {}
    90 21 TxCommitOk "tx.commit_ok" {}
    90 30 TxRollback "tx.rollback" {}
    90 31 TxRollbackOk "tx.rollback_ok" {}
}
