mod reply;
mod wire;
mod zone;
