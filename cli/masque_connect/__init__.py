"""The masque-connect command."""

import dns._features

# Where aioquic is installed dnspython imports it, for DNS over QUIC, with whatever it is used for: a sixth of what a
# command's start costs, for something that none of them does.
dns._features.force("doq", False)
