"""FedWard: a federated-learning appliance for hospital consortia."""
