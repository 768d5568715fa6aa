'use strict';
const fs = require('fs');
const {FtpSrv} = require('ftp-srv');

const {ROOT, PORT, IDLE, ACCOUNT, PASSWORD, CERTIFICATE, KEY, TLS, ENTRY, RUN_AS} = process.env;

const tls = CERTIFICATE && {
  cert: fs.readFileSync(CERTIFICATE),
  key: fs.readFileSync(KEY),
  minVersion: `TLSv${TLS}`,
};

if (RUN_AS) {
  // Root would be let in everywhere.
  process.setgroups([]);
  process.setgid(Number(RUN_AS));
  process.setuid(Number(RUN_AS));
  process.umask(0o022);
}

const server = new FtpSrv({
  url: `${ENTRY === 'implicit' ? 'ftps' : 'ftp'}://127.0.0.1:${PORT}`,
  pasv_url: '127.0.0.1',
  // Of two that try the same port at the same time, one never answers PASV.
  pasv_min: 1100 + (PORT % 300) * 100,
  pasv_max: 1199 + (PORT % 300) * 100,
  anonymous: true,
  timeout: Number(IDLE) * 1000,
  tls: tls || false,
});
server.on('login', ({username, password}, resolve, reject) => {
  if (username === 'anonymous' || (username === ACCOUNT && password === PASSWORD)) {
    resolve({root: ROOT});
  } else {
    reject(new Error('wrong password'));
  }
});
server.listen();
