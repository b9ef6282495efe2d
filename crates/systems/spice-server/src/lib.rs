//! Safe wrapper over libspice-server: stream port in, SPICE out.
