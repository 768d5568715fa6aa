from OpenSSL import SSL
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer

import common

handler = FTPHandler
if common.certificate:
    handler = TLS_FTPHandler
    handler.certfile = common.certificate
    handler.keyfile = common.key
    handler.tls_control_required = True
    handler.tls_data_required = True
    if common.newer:
        handler.get_ssl_context().set_min_proto_version(SSL.TLS1_3_VERSION)
authorizer = DummyAuthorizer()
authorizer.add_anonymous(common.root, perm="elradfmwMT")
authorizer.add_user(common.account, common.password, common.root, perm="elradfmwMT")
handler.authorizer = authorizer
handler.timeout = common.idle
server = FTPServer(("127.0.0.1", common.port), handler)
common.become_nobody()
server.serve_forever()
