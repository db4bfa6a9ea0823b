"""Every script of examples/ runs and keeps what its page promises."""
