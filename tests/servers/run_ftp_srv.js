'use strict';
const {FtpSrv} = require('ftp-srv');

const {ROOT, PORT, IDLE, ACCOUNT, PASSWORD, RUN_AS} = process.env;

if (RUN_AS) {
  // Root would be let in everywhere.
  process.setgroups([]);
  process.setgid(Number(RUN_AS));
  process.setuid(Number(RUN_AS));
  process.umask(0o022);
}

const server = new FtpSrv({
  url: `ftp://127.0.0.1:${PORT}`,
  pasv_url: '127.0.0.1',
  anonymous: true,
  timeout: Number(IDLE) * 1000,
});
server.on('login', ({username, password}, resolve, reject) => {
  if (username === 'anonymous' || (username === ACCOUNT && password === PASSWORD)) {
    resolve({root: ROOT});
  } else {
    reject(new Error('wrong password'));
  }
});
server.listen();
