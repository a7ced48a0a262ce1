kumo.start_esmtp_listener {
  tls_certificate = { vault_mount = 'secret', vault_path = 'cert' },
  tls_private_key = { key_data = 5 },
}
